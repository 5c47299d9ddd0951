"""An engine without a model, for tests, demos and capacity planning: the same protocol, predictable output.

The output is words `w123 w45 ...`. Word `n` is a function of the prompt, the seed (with temperature 0: of the
prompt alone) and `n`, so a request that moves to another agent goes on exactly. A prompt's tokens are its words.
An embedding is a function of its text alone, a score of query and document. A question about texts is
answered in the step that finds it (`answer_script.py`).

Directives in the prompt, in any message or in any input of an embedding, whose tokens are then its vectors:

- `[[tokens=N]]`: the output ends by itself after N tokens (else after `default_tokens`).
- `[[say=TEXT]]`: the output is TEXT, one token a byte, so that characters and stop strings span tokens.
- `[[now=TEXT]]`: the same, whatever else it is told to say: for a later turn of a conversation.
- `[[think]]`: the prompt has opened `<think>`, so that TEXT is reasoning up to its `</think>`.
- `[[fail]]`: the job is rejected (`engine_failed`).
- `[[die]]`, `[[die=N]]`: the process kills itself (SIGKILL) at the first token, or when N tokens have been
  returned; only with `is_deadly`, else ignored.
- `[[stall=SECONDS]]`: the step after the first token hangs for so long, or until it is interrupted.
- `[[hang]]`: that step never ends, as if native code looped; only with `is_deadly`, else ignored.
- `[[preempt=N]]`: the job is preempted when N tokens have been returned.

With tools, TEXT has calls in the form of `hermes` (`paddler.chat_formats`); to be made to call one is refused.

The last four spare a job that goes on with tokens of an earlier attempt. The first two mean nothing to an embedding.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from paddler.engine import Done, EngineInfo, Event, Job, KeepsNoStates, NoFreeSlot, Preempted, Rejected, Retained
from paddler.errors import PaddlerError
from paddler.images import refuse_images
from paddler.payload import check_payload
from paddler.testing.answer_script import answer_to, faults_in
from paddler.testing.embed_script import EmbedScript
from paddler.testing.prefix_cache import MAX_PARKED, PrefixCache
from paddler.testing.script import DEFAULT_CONTEXT, DEFAULT_TOKENS, Script
from paddler.wire.agent import Embed, Generate, Rerank
from paddler.wire.answers import encode_answer
from paddler.wire.balancer import FinishReason, Usage

__all__ = ["ScriptedEngine"]


YIELD_S = 1e-5
LOAD_STEP_S = 0.05


def pretend_to_load(seconds: float, report: Callable[[float], None]) -> None:
    """Take so long, saying every 50 ms how far it is."""
    num_steps = max(1, round(seconds / LOAD_STEP_S))
    for step in range(num_steps if seconds else 0):
        report(step / num_steps)
        threading.Event().wait(LOAD_STEP_S)


class ScriptedEngine(KeepsNoStates):
    """Every step gives each running job one token, once its prompt is prefilled, or one vector.

    `step_s` is how long a step takes (0: as fast as possible), `prefill_per_step` how many prompt tokens each
    job prefills in one (0: all). `pause(seconds)` waits; the default waits for real and ends when the engine is
    closed. `context_size` bounds each job alone, `cache_tokens` (None: as many) what stays parked of ended jobs: a
    prompt that begins like one of them does not prefill what they have in common. To an engine of another `vocabulary`
    its tokens mean nothing; without one it does not tell.
    """

    def __init__(
        self,
        *,
        slots: int = 4,
        model: str = "scripted",
        context_size: int = DEFAULT_CONTEXT,
        default_tokens: int = DEFAULT_TOKENS,
        step_s: float = 0.0,
        prefill_per_step: int = 0,
        cache_tokens: int | None = None,
        is_deadly: bool = False,
        vocabulary: str = "",
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.info = EngineInfo(
            model=model,
            slots_total=slots,
            context_size=context_size,
            build="scripted",
            max_parked=MAX_PARKED,
            abilities=("generate", "embed", "rerank", "tokenize"),
            vocabulary=vocabulary,
            weights=vocabulary and model,
            metadata={"general.architecture": "scripted", "general.name": model},
        )
        self._default_tokens = default_tokens
        self._step_s = step_s
        self._prefill_per_step = prefill_per_step
        self._is_deadly = is_deadly
        self._is_closed = False
        self._woken = threading.Event()
        self._pause = pause or self._wait
        self._cache = PrefixCache(context_size if cache_tokens is None else cache_tokens)
        self._started: list[Job] = []
        self._running: list[Script | EmbedScript] = []
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
        has_new = bool(self._started)
        self._prepare(events)
        if not self._running:
            return events
        if self._step_s:
            self._pause(self._step_s)
        elif not has_new:
            # While llama.cpp decodes, the loop has the interpreter to itself: it can send what the last step gave.
            self._pause(YIELD_S)
        for script in list(self._running):
            self._advance(script, events)
        return events

    def use_template(self, source: str | None) -> None:
        """There are no prompts to be made with it."""

    def interrupt(self) -> None:
        """End the pause of a step that runs now, else of the next one. From any thread."""
        self._woken.set()

    def _wait(self, seconds: float) -> None:
        if self._woken.wait(seconds) and not self._is_closed:
            self._woken.clear()

    def close(self) -> None:
        self._is_closed = True
        self._woken.set()
        self._started.clear()
        self._running.clear()
        self._cache.clear()

    def _take_commands(self, events: list[Event]) -> None:
        for job in self._cancelled:
            if job in self._started:
                self._started.remove(job)
                events.append(Done(job.request_id, FinishReason.CANCELLED, Usage()))
            else:
                self._end(next(script for script in self._running if script.job is job), FinishReason.CANCELLED, events)
        self._cancelled.clear()

    def _prepare(self, events: list[Event]) -> None:
        for job in self._started:
            try:
                check_payload(job.payload)
                if not isinstance(job.payload, Generate | Embed | Rerank):
                    if self._is_deadly and faults_in(job.payload).dies_at is not None:
                        os.kill(os.getpid(), signal.SIGKILL)
                    answer = encode_answer(answer_to(job.payload))
                    events.append(Done(job.request_id, FinishReason.STOP, Usage(), answer=answer))
                    continue
                script = self._script_of(job, job.payload)
            except PaddlerError as error:
                told = (error.code, error.message, error.status, error.param, job.earlier_usage)
                events.append(Rejected(job.request_id, *told))
                continue
            self._running.append(script)
            if (reason := _reason_to_finish(script)) is not None:
                self._end(script, reason, events)
            elif isinstance(script, Script):
                script.take_cached(self._cache.match(script.payload.cache_scope, script.prompt_words))
        self._started.clear()

    def _script_of(self, job: Job, payload: Generate | Embed | Rerank) -> Script | EmbedScript:
        if not isinstance(payload, Generate):
            return EmbedScript(job, payload, self.info.context_size)
        refuse_images(payload, "it is a script")
        return Script(job, payload, self._default_tokens, self.info.context_size)

    def _advance(self, script: Script | EmbedScript, events: list[Event]) -> None:
        if isinstance(script, Script):
            was_prefilled = script.is_prefilled
            if not script.prefill(self._prefill_per_step):
                return
            if not was_prefilled:
                num_prompt = len(script.prompt_words)
                events.append(Retained(script.job.request_id, num_prompt, num_prompt, script.num_cached, script.format))
        faults = script.faults
        if self._is_deadly and faults.dies_at == script.num_output:
            os.kill(os.getpid(), signal.SIGKILL)
        if faults.stall_s is not None and script.num_output == 1:
            self._pause(faults.stall_s)
        if faults.hangs and self._is_deadly and script.num_output == 1:
            threading.Event().wait()
        if faults.preempted_at is not None and script.num_output == faults.preempted_at:
            self._running.remove(script)
            events.append(Preempted(script.job.request_id))
            self._park(script, events)
            return
        events.append(script.next())
        if (reason := _reason_to_finish(script)) is not None:
            self._end(script, reason, events)

    def _end(self, script: Script | EmbedScript, reason: FinishReason, events: list[Event]) -> None:
        self._running.remove(script)
        events.append(script.done(reason))
        self._park(script, events)

    def _park(self, script: Script | EmbedScript, events: list[Event]) -> None:
        """After the end: only then does the agent know the whole text."""
        if isinstance(script, Script) and script.is_prefilled:
            events += self._cache.park(script.job.request_id, script.payload.cache_scope, script.words)


def _reason_to_finish(script: Script | EmbedScript) -> FinishReason | None:
    if isinstance(script, EmbedScript):
        return FinishReason.STOP if script.is_finished else None
    return script.finished
