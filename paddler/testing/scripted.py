"""An engine without a model, for tests, demos and capacity planning: the same protocol, predictable output.

The output is words `w123 w45 ...`. Word `n` is a function of the prompt, the seed (with temperature 0: of the
prompt alone) and `n`, so a request that moves to another agent goes on exactly. A prompt's tokens are its words.

Directives in the prompt or in any message:

- `[[tokens=N]]`: the output ends by itself after N tokens (else after `default_tokens`).
- `[[say=TEXT]]`: the output is TEXT, one token a byte, so that characters and stop strings span tokens.
- `[[fail]]`: the job is rejected (`engine_failed`).
- `[[die]]`, `[[die=N]]`: the process kills itself (SIGKILL) at the first token, or when N tokens have been
  returned; only with `is_deadly`, else ignored. With N, a request continued elsewhere survives.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from collections.abc import Callable

from paddler.detokenizer import Detokenizer
from paddler.engine import Done, EngineInfo, Event, Job, NoFreeSlot, Progress, Rejected
from paddler.errors import ContextExceeded, EngineFailed, InvalidField, PaddlerError
from paddler.payload import check_payload
from paddler.wire.agent import Generate
from paddler.wire.balancer import FinishReason, Usage

NUM_WORDS = 50_000
"""Tokens below are words, the 256 from here on are bytes."""


class ScriptedEngine:
    """Every step gives each running job one token, once its prompt is prefilled.

    `step_s` is how long a step takes (0: as fast as possible), `prefill_per_step` how many prompt tokens each
    job prefills in one (0: all). `pause(seconds)` waits; the default waits for real and ends when the engine is
    closed. `context_size` bounds each job alone.
    """

    def __init__(
        self,
        *,
        slots: int = 4,
        model: str = "scripted",
        context_size: int = 8192,
        default_tokens: int = 16,
        step_s: float = 0.0,
        prefill_per_step: int = 0,
        is_deadly: bool = False,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.info = EngineInfo(model=model, slots_total=slots, context_size=context_size, build="scripted")
        self._default_tokens = default_tokens
        self._step_s = step_s
        self._prefill_per_step = prefill_per_step
        self._is_deadly = is_deadly
        self._closed = threading.Event()
        self._pause = pause or self._closed.wait
        self._started: list[Job] = []
        self._running: list[_Script] = []
        self._cancelled: list[Job] = []

    @property
    def num_free_slots(self) -> int:
        return self.info.slots_total - len(self._started) - len(self._running)

    def start(self, job: Job) -> None:
        if self.num_free_slots == 0:
            raise NoFreeSlot(f"no free slot for request {job.request_id}")
        self._started.append(job)

    def cancel(self, request_id: str) -> None:
        jobs = [*self._started, *(script.job for script in self._running)]
        self._cancelled += [job for job in jobs if job.request_id == request_id and job not in self._cancelled]

    def step(self) -> list[Event]:
        events: list[Event] = []
        self._take_commands(events)
        self._prepare(events)
        if not self._running:
            return events
        if self._step_s:
            self._pause(self._step_s)
        for script in list(self._running):
            if script.prefill(self._prefill_per_step):
                if self._is_deadly and script.is_time_to_die:
                    os.kill(os.getpid(), signal.SIGKILL)
                events.append(script.next())
                self._end_if_finished(script, events)
        return events

    def close(self) -> None:
        self._closed.set()
        self._started.clear()
        self._running.clear()

    def _take_commands(self, events: list[Event]) -> None:
        for job in self._cancelled:
            usage = Usage()
            if job in self._started:
                self._started.remove(job)
            else:
                script = next(script for script in self._running if script.job is job)
                self._running.remove(script)
                usage = script.usage
            events.append(Done(job.request_id, FinishReason.CANCELLED, usage))
        self._cancelled.clear()

    def _prepare(self, events: list[Event]) -> None:
        for job in self._started:
            try:
                check_payload(job.payload)
                script = _Script(job, self._default_tokens, self.info.context_size)
            except PaddlerError as error:
                events.append(Rejected(job.request_id, error.code, error.message, error.status, error.param))
            else:
                self._running.append(script)
                self._end_if_finished(script, events)
        self._started.clear()

    def _end_if_finished(self, script: _Script, events: list[Event]) -> None:
        if script.finished is not None:
            self._running.remove(script)
            events.append(script.done(script.finished))


class _Script:
    """One running job: what it will say, and how far it is."""

    def __init__(self, job: Job, default_tokens: int, context_size: int) -> None:
        self.job = job
        text = _prompt_text(job.payload)
        param = "messages" if job.payload.prompt is None else "prompt"
        if (found := re.search(r"\[\[tokens=(\d+)\]\]", text)) is not None:
            default_tokens = int(found[1])
        said = re.search(r"\[\[say=(.*?)\]\]", text, re.DOTALL)
        self._said = [NUM_WORDS + byte for byte in said[1].encode()] if said is not None else None
        self._num_script = default_tokens if self._said is None else len(self._said)
        if "[[fail]]" in text:
            raise EngineFailed("the prompt says [[fail]]")
        dies = re.search(r"\[\[die(?:=(\d+))?\]\]", text)
        self._dies_at = int(dies[1] or 0) if dies is not None else None
        self._num_prompt = len(text.split())
        if self._num_prompt == 0:
            raise InvalidField("the prompt is empty", param=param)
        if self._num_prompt >= context_size:
            raise ContextExceeded(
                f"the prompt has {self._num_prompt} tokens, but the context holds {context_size}, the output included",
                param=param,
            )
        self._max_output = context_size - self._num_prompt
        if job.payload.max_tokens is not None:
            self._max_output = min(self._max_output, job.payload.max_tokens)
        if not all(0 <= token < NUM_WORDS + 256 for token in job.resume_ids):
            raise EngineFailed("the request was begun by an agent with another model: its tokens are unknown here")
        sampling = job.payload.sampling
        self._source = f"{sampling.seed if sampling.temperature > 0 else ''}\0{text}".encode()
        self._num_prefilled = 0
        self._num_output = len(job.resume_ids)
        self._detokenizer = Detokenizer(job.payload.stop, skip=job.resume_text_length)
        self._unsent = "".join(self._detokenizer.push(_piece(token)) for token in job.resume_ids)
        self.finished = self._reason_to_finish()

    @property
    def usage(self) -> Usage:
        return Usage(self._num_prompt, self._num_output)

    @property
    def is_time_to_die(self) -> bool:
        return self._dies_at is not None and self._num_output == self._dies_at

    def prefill(self, num_tokens: int) -> bool:
        """Prefill up to `num_tokens` (0: all); whether the prompt is done, so that the step gives a token."""
        self._num_prefilled += num_tokens or self._num_prompt
        return self._num_prefilled >= self._num_prompt

    def next(self) -> Progress:
        token = self._token(self._num_output)
        self._num_output += 1
        text = self._unsent + self._detokenizer.push(_piece(token))
        self._unsent = ""
        self.finished = self._reason_to_finish()
        return Progress(self.job.request_id, (token,), text)

    def done(self, reason: FinishReason) -> Done:
        return Done(self.job.request_id, reason, self.usage, self._unsent + self._detokenizer.flush())

    def _reason_to_finish(self) -> FinishReason | None:
        if self._detokenizer.is_stopped or self._num_output >= self._num_script:
            return FinishReason.STOP
        return FinishReason.LENGTH if self._num_output >= self._max_output else None

    def _token(self, n: int) -> int:
        if self._said is not None:
            return self._said[n]
        digest = hashlib.blake2b(self._source + n.to_bytes(4, "big"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % NUM_WORDS


def _piece(token: int) -> bytes:
    return f"w{token} ".encode() if token < NUM_WORDS else bytes([token - NUM_WORDS])


def _prompt_text(payload: Generate) -> str:
    if payload.prompt is not None:
        return payload.prompt
    return "\n".join(f"{message.role}: {message.content}" for message in payload.messages or ())
