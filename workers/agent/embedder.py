"""Embeddings beside generation: a second, small context on the same model, made when the first job needs it.

A step packs tokens of as many inputs as its time allows into one decode, equal shares for each job and the inputs of a
job in their order. llama.cpp pools the tokens that are in one batch; an input that took several has its parts put
together here, so that no step is longer because an input is. See DESIGN.md.
"""

from __future__ import annotations

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray

from paddler.clock import Clock
from paddler.engine import Done, Embedded, Event, Job, ModelError
from paddler.errors import ContextExceeded, EngineFailed
from paddler.payload import check_dimensions, check_payload
from paddler.vectors import check_earlier_size, pack_vector
from paddler.wire.agent import Embed
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.llama import AttachedOptions, Context, Decoded, Model, Pooling, max_sequences
from workers.agent.rejecting import rejected
from workers.agent.tokens import TokenArray

log = structlog.get_logger(__name__)

MAX_BATCH = 256
"""Tokens in one decode: each costs llama.cpp two rows of logits, which nobody reads."""
MAX_SEQUENCES = 64
"""Inputs in one decode."""
PREPARE_S = 0.05
"""Time of a step for turning inputs into tokens; at least one is done."""
SIGN_S = 5.0
"""After so long without a vector a job says that it goes on, also one whose input waits for the cells of another:
each of eight jobs of long inputs on a slow CPU may need longer for one than a balancer waits for a sign of life."""
MIN_TOKENS = 8
"""A smaller batch costs about as much as this one: the weights are read once a step either way."""


class Text(Struct):
    """One input. `num_done` of its tokens are computed, `pooled` is what came of them; `key` is its sequence id, None
    before it is begun."""

    tokens: TokenArray
    key: int | None = None
    num_done: int = 0
    pooled: NDArray[np.float64] | None = None

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - self.num_done


class Task:
    """One job. `texts` are the inputs that have tokens and no vector yet."""

    def __init__(self, job: Job, payload: Embed, now: float) -> None:
        self.job = job
        self.payload = payload
        self.texts: list[Text] = []
        self.is_checked = False
        self.num_prepared = len(job.embedded)
        self.num_tokens = list(job.embedded)
        """Of each input whose vector is out."""
        self.said_at = now

    @property
    def is_prepared(self) -> bool:
        return self.is_checked and self.num_prepared >= len(self.payload.inputs)

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=sum(self.num_tokens))

    def done(self, reason: FinishReason) -> Done:
        return Done(self.job.request_id, reason, self.usage)


class Embedder:
    """The embedding jobs of one engine. `max_tokens` bounds an input, and is the size of the context."""

    def __init__(
        self,
        model: Model,
        clock: Clock,
        *,
        max_tokens: int,
        num_threads: int,
        token_s: float,
        options: AttachedOptions | None = None,
    ) -> None:
        """`token_s` is a first guess at what a token costs."""
        self._options = options
        self._model = model
        self._clock = clock
        self._max_tokens = max_tokens
        self._num_threads = num_threads
        self._token_s = token_s
        self._context: Context | None = None
        self._free: list[int] = []
        self._num_cells = 0
        """Cells of the inputs that are begun, also those that are not computed yet."""
        self._is_narrow = False
        """One input at a time: the memory is of a kind whose cells cannot be counted."""
        self._tasks: list[Task] = []
        """The oldest first."""
        self._cancelled: list[Task] = []

    @property
    def num_jobs(self) -> int:
        return len(self._tasks)

    @property
    def has_context(self) -> bool:
        return self._context is not None

    def start(self, job: Job, payload: Embed) -> None:
        self._tasks.append(Task(job, payload, self._clock.monotonic()))

    def cancel(self, request_id: str) -> None:
        # Tasks, not requests: the same request may be started again before the next step.
        self._cancelled += [task for task in self._tasks if task.job.request_id == request_id]

    def interrupt(self) -> None:
        """Make a running decode return early. From any thread."""
        if self._context is not None:
            self._context.interrupt()

    def close(self) -> None:
        self._tasks.clear()
        if self._context is not None:
            self._context.close()

    def step(self, budget_s: float) -> list[Event]:
        """At most about `budget_s` of computing, for all jobs."""
        events: list[Event] = []
        for task in self._cancelled:
            if task in self._tasks:
                self._end(task, task.done(FinishReason.CANCELLED), events)
        self._cancelled.clear()
        self._prepare(events)
        if any(task.is_prepared and task.texts for task in self._tasks):
            try:
                self._compute(self._open(), budget_s, events)
            except ModelError as error:
                log.error("no context for embeddings", reason=str(error))
                failure = EngineFailed(f"this agent has no memory for embeddings: {error}")
                for task in list(self._tasks):
                    self._end(task, rejected(task.job, failure, task.usage), events)
        for task in list(self._tasks):
            if task.is_prepared and not task.texts:
                self._end(task, task.done(FinishReason.STOP), events)
        return events

    def _open(self) -> Context:
        if self._context is None:
            num_sequences = min(MAX_SEQUENCES, max_sequences())
            self._context = Context(
                self._model,
                num_sequences=num_sequences,
                context_size=self._max_tokens,
                max_batch=min(MAX_BATCH, self._max_tokens),
                num_threads=self._num_threads,
                embeds=True,
                options=self._options,
            )
            self._max_tokens = min(self._max_tokens, self._context.num_cells)
            self._free = list(range(num_sequences))
            log.info("embeddings have their context now", num_tokens=self._max_tokens, pooling=self._model.pooling.name)
        return self._context

    def _prepare(self, events: list[Event]) -> None:
        """Check and tokenise what was started, as far as the time allows. All inputs of a job before any is computed:
        what cannot be done has cost nothing."""
        deadline = self._clock.monotonic() + PREPARE_S
        for task in [task for task in self._tasks if not task.is_prepared]:
            try:
                if not task.is_checked:
                    check_payload(task.payload)
                    check_dimensions(task.payload, self._model.embedding_size)
                    check_earlier_size(task.job, self._model.embedding_size)
                    task.is_checked = True
                while not task.is_prepared:
                    task.texts.append(Text(self._tokens(task)))
                    task.num_prepared += 1
                    if self._clock.monotonic() >= deadline:
                        return
            except Exception as failure:
                self._end(task, rejected(task.job, failure, task.usage), events)

    def _tokens(self, task: Task) -> TokenArray:
        """Raises `ContextExceeded`, `EngineFailed`."""
        name = task.payload.name_of(task.num_prepared)
        text = task.payload.inputs[task.num_prepared]
        least = len(text.encode("utf-8", "replace")) // max(self._model.max_piece, 1)
        if least > self._max_tokens:
            # Seen without tokenising, which takes time in proportion to the length.
            raise _too_long(name, f"at least {least}", self._max_tokens)
        tokens = self._model.tokenize(text, adds_special=True)
        if len(tokens) > self._max_tokens:
            raise _too_long(name, str(len(tokens)), self._max_tokens)
        if not len(tokens):
            raise EngineFailed(f"{name} has no token for this model")
        return tokens

    def _compute(self, context: Context, budget_s: float, events: list[Event]) -> None:
        batch = context.batch
        batch.clear()
        num_left = min(max(int(budget_s / self._token_s), MIN_TOKENS), context.max_batch)
        chunks: list[tuple[Task, Text, int]] = []
        tasks = [task for task in self._tasks if task.is_prepared and task.texts]
        is_full = False
        if self._is_narrow:
            tasks = tasks[:1]
        for number, task in enumerate(tasks):
            share = -(-num_left // (len(tasks) - number))
            for text in task.texts[: 1 if self._is_narrow else None]:
                if share == 0:
                    break
                if text.key is None:
                    is_full = is_full or not self._begin(text)
                if text.key is None:
                    break
                num_tokens = min(share, text.num_pending)
                batch.add(text.tokens[text.num_done :][:num_tokens], text.num_done, text.key, wants_logits=True)
                chunks.append((task, text, num_tokens))
                share -= num_tokens
                num_left -= num_tokens
        if not chunks:
            return
        started_at = self._clock.monotonic()
        decoded = context.decode()
        if decoded is not Decoded.OK:
            self._undo(decoded, chunks, events)
            return
        self._observe(self._clock.monotonic() - started_at, batch.size)
        for _, text, num_tokens in chunks:
            self._pool(context, text, num_tokens)
            if text.num_pending == 0:
                self._release(text)
        for task in self._tasks:
            if task.is_prepared:
                self._emit(task, events)

    def _begin(self, text: Text) -> bool:
        """Whether there is room for it from its first token to its last. When there is none no younger job begins
        another, so that there will be."""
        if not self._free or self._num_cells + len(text.tokens) > self._max_tokens:
            return False
        text.key = self._free.pop()
        self._num_cells += len(text.tokens)
        return True

    def _release(self, text: Text) -> None:
        if text.key is not None and self._context is not None:
            self._context.remove(text.key)
            self._free.append(text.key)
            self._num_cells -= len(text.tokens)
            text.key = None

    def _pool(self, context: Context, text: Text, num_tokens: int) -> None:
        assert text.key is not None
        part = context.embedding(text.key).astype(np.float64)
        if text.pooled is None or self._model.pooling is Pooling.LAST:
            text.pooled = part
        elif self._model.pooling is Pooling.MEAN:
            text.pooled += (part - text.pooled) * (num_tokens / (text.num_done + num_tokens))
        text.num_done += num_tokens

    def _emit(self, task: Task, events: list[Event]) -> None:
        """The vectors that are complete; in order, as an input is only begun when the one before it is in the batch.
        After long without any: that it goes on."""
        ready: list[Text] = []
        while task.texts and task.texts[0].num_pending == 0:
            ready.append(task.texts.pop(0))
        if ready or self._clock.monotonic() - task.said_at >= SIGN_S:
            task.said_at = self._clock.monotonic()
            vectors = tuple(pack_vector(text.pooled, task.payload) for text in ready if text.pooled is not None)
            num_tokens = tuple(len(text.tokens) for text in ready)
            task.num_tokens += num_tokens
            events.append(Embedded(task.job.request_id, vectors, num_tokens))

    def _undo(self, decoded: Decoded, chunks: list[tuple[Task, Text, int]], events: list[Event]) -> None:
        """The batch was not computed: everything that is begun begins again. No room, although the cells were counted
        as free (memory of another kind than one cell a token): one input at a time from now on, if that is possible."""
        num_texts = sum(text.key is not None for task in self._tasks for text in task.texts)
        for task in self._tasks:
            for text in task.texts:
                self._release(text)
                text.num_done, text.pooled = 0, None
        if decoded is Decoded.NO_ROOM:
            self._is_narrow = True
            if num_texts == 1:
                error = EngineFailed("the memory of this model has no room for this input")
                task = chunks[0][0]
                self._end(task, rejected(task.job, error, task.usage), events)

    def _observe(self, elapsed_s: float, num_tokens: int) -> None:
        """Slower is believed quickly, faster slowly: one mismeasured small batch must not allow a long step."""
        if num_tokens < MIN_TOKENS:
            return
        token_s = max(elapsed_s / num_tokens, 0.25 * self._token_s)
        self._token_s += (0.5 if token_s > self._token_s else 0.2) * (token_s - self._token_s)

    def _end(self, task: Task, event: Event, events: list[Event]) -> None:
        self._tasks.remove(task)
        for text in task.texts:
            self._release(text)
        events.append(event)


def _too_long(name: str, num_tokens: str, max_tokens: int) -> ContextExceeded:
    return ContextExceeded(f"{name} has {num_tokens} tokens, but at most {max_tokens} can be embedded", param=name)
