"""Embeddings beside generation: a second, small context on the same model, made when the first job needs it.

A step packs tokens of as many inputs as its time allows into one decode, equal shares for each job and the inputs of a
job in their order. llama.cpp pools the tokens that are in one batch; an input that took several has its parts put
together here, so that no step is longer because an input is. A model that looks both ways needs an input as a whole:
then jobs take turns. See DESIGN.md.
"""

from __future__ import annotations

import numpy as np
import structlog

from paddler.clock import Clock
from paddler.engine import Embedded, Event, Job, ModelError, Working
from paddler.errors import EngineFailed
from paddler.payload import check_payload, vector_size
from paddler.vectors import check_earlier_size, pack_vector
from paddler.wire.agent import Encode
from paddler.wire.balancer import FinishReason
from workers.agent.context import AttachedOptions, Context, Decoded
from workers.agent.embed_task import Task, Text
from workers.agent.inputs import InputEncoder
from workers.agent.llama import Model, Pooling, max_sequences
from workers.agent.pooling import check_pooled
from workers.agent.rejecting import rejected
from workers.agent.signs import SIGN_S

log = structlog.get_logger(__name__)

MAX_INPUT = 2048
"""Tokens of the longest input, and what the first embedding costs in KV cache, whatever the model's context."""
MAX_BATCH = 256
"""Tokens in one decode: each costs llama.cpp two rows of logits, which nobody reads."""
MAX_SEQUENCES = 64
"""Inputs in one decode."""
PREPARE_S = 0.05
"""Time of a step for turning inputs into tokens; at least one is done."""
WARM_UP_TOKENS = 32
MIN_TOKENS = 8
"""A smaller batch costs about as much as this one: the weights are read once a step either way."""


class Embedder:
    """The embedding jobs of one engine. `max_tokens` bounds an input, and is the size of the context."""

    def __init__(
        self,
        model: Model,
        clock: Clock,
        *,
        pooling: Pooling,
        max_tokens: int,
        num_threads: int,
        token_s: float,
        options: AttachedOptions | None = None,
    ) -> None:
        """`token_s` is a first guess at what a token costs."""
        self._options = options
        self._model = model
        self._clock = clock
        self._pooling = pooling
        self._max_tokens = max_tokens
        self._num_threads = num_threads
        self._token_s = token_s
        self._encoder = InputEncoder(model)
        self._context: Context | None = None
        self._free: list[int] = []
        self._num_cells = 0
        """Cells of the inputs that are begun, also those that are not computed yet."""
        self._is_narrow = False
        """One input at a time: the memory is of a kind whose cells cannot be counted."""
        self._tasks: list[Task] = []
        """The oldest first."""
        self._cancelled: list[Task] = []
        self._num_decodes = 0

    @property
    def num_jobs(self) -> int:
        return len(self._tasks)

    @property
    def has_context(self) -> bool:
        return self._context is not None

    def start(self, job: Job, payload: Encode) -> None:
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
        events += [Working(task.job.request_id) for task in self._tasks if not task.is_prepared and self._is_due(task)]
        if any(task.is_prepared and task.texts for task in self._tasks):
            try:
                self._compute(self.open(), budget_s, events)
            except ModelError as error:
                log.error("no context for embeddings", reason=str(error))
                failure = EngineFailed(f"this agent has no memory for embeddings: {error}")
                for task in list(self._tasks):
                    self._end(task, rejected(task.job, failure, task.usage), events)
        for task in list(self._tasks):
            if task.is_prepared and not task.texts:
                self._end(task, task.done(FinishReason.STOP), events)
        return events

    def open(self) -> Context:
        """Its context, made when this is first called. Raises `ModelError`."""
        if self._context is None:
            # An input that cannot be cut has to fit into a batch.
            max_batch = MAX_BATCH if self._model.is_causal else max(MAX_BATCH, self._max_tokens)
            max_batch = min(max_batch, self._max_tokens)
            # llama.cpp ends the process for a context of more sequences than tokens in a batch.
            num_sequences = min(MAX_SEQUENCES, max_sequences(), max_batch)
            self._context = Context(
                self._model,
                num_sequences=num_sequences,
                context_size=self._max_tokens,
                max_batch=max_batch,
                num_threads=self._num_threads,
                pooling=self._pooling,
                options=self._options,
            )
            self._max_tokens = min(self._max_tokens, self._context.num_cells)
            self._free = list(range(num_sequences))
            log.info("embeddings have their context now", num_tokens=self._max_tokens, pooling=self._pooling.name)
        return self._context

    def warm_up(self) -> float:
        """Make the context, and measure: seconds a token costs. Raises `ModelError`."""
        context = self.open()
        # Letters, not numbers: which tokens they are is for the vocabulary to know.
        tokens = self._model.tokenize("a b c d " * WARM_UP_TOKENS)[: min(WARM_UP_TOKENS, context.max_batch)]
        if not len(tokens):
            raise ModelError(f"{self._model.path} has no tokens for letters: its vocabulary is not supported")
        for _ in range(2):
            context.batch.clear()
            context.batch.add(tokens, 0, 0, wants_logits=True)
            started_at = self._clock.monotonic()
            if context.decode() is not Decoded.OK:
                raise ModelError("the model does not fit its context: choose a larger one")
            self._token_s = max(self._clock.monotonic() - started_at, 1e-6) / len(tokens)
            context.remove(0)
        return self._token_s

    def _prepare(self, events: list[Event]) -> None:
        """Check and tokenise what was started, as far as the time allows. All inputs of a job before any is computed:
        what cannot be done has cost nothing."""
        deadline = self._clock.monotonic() + PREPARE_S
        for task in [task for task in self._tasks if not task.is_prepared]:
            try:
                if not task.is_checked:
                    check_payload(task.payload)
                    check_pooled(self._pooling, task.payload)
                    check_earlier_size(task.job, vector_size(task.payload, self._model.embedding_size))
                    task.is_checked = True
                while not task.is_prepared:
                    tokens = self._encoder.encode(task.payload, task.num_prepared, self._max_tokens)
                    task.texts.append(Text(tokens))
                    task.num_prepared += 1
                    if self._clock.monotonic() >= deadline:
                        return
            except Exception as failure:
                self._end(task, rejected(task.job, failure, task.usage), events)

    def _compute(self, context: Context, budget_s: float, events: list[Event]) -> None:
        batch = context.batch
        batch.clear()
        num_left = min(max(int(budget_s / self._token_s), MIN_TOKENS), MAX_BATCH, context.max_batch)
        chunks: list[tuple[Task, Text, int]] = []
        tasks = [task for task in self._tasks if task.is_prepared and task.texts]
        is_full = False
        if not self._model.is_causal:
            tasks.sort(key=lambda task: task.turn)
        if self._is_narrow:
            tasks = tasks[:1]
        for number, task in enumerate(tasks):
            share = -(-num_left // (len(tasks) - number))
            for text in task.texts[: 1 if self._is_narrow else None]:
                num_tokens = min(share, text.num_pending) if self._model.is_causal else len(text.tokens)
                # One that cannot be cut may take more than its share, and than the time, but only as the first.
                if share <= 0 or (num_tokens > share and chunks):
                    break
                if text.key is None:
                    is_full = is_full or not self._begin(text)
                if text.key is None:
                    break
                batch.add(text.tokens[text.num_done :][:num_tokens], text.num_done, text.key, wants_logits=True)
                chunks.append((task, text, num_tokens))
                share -= num_tokens
                num_left -= num_tokens
        if not chunks:
            return
        self._num_decodes += 1
        started_at = self._clock.monotonic()
        decoded = context.decode()
        if decoded is not Decoded.OK:
            self._undo(decoded, chunks, events)
            return
        self._observe(self._clock.monotonic() - started_at, batch.size)
        for task, text, num_tokens in chunks:
            assert text.key is not None
            text.add(context.embedding(text.key).astype(np.float64), num_tokens, self._pooling)
            task.turn = self._num_decodes
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

    def _emit(self, task: Task, events: list[Event]) -> None:
        """The vectors that are complete; in order, as an input is only begun when the one before it is in the batch.
        After long without any: that it goes on."""
        ready: list[Text] = []
        while task.texts and task.texts[0].num_pending == 0:
            ready.append(task.texts.pop(0))
        if not ready and self._is_due(task):
            events.append(Working(task.job.request_id))
        elif ready:
            task.said_at = self._clock.monotonic()
            vectors = tuple(pack_vector(text.pooled, task.payload) for text in ready if text.pooled is not None)
            num_tokens = tuple(len(text.tokens) for text in ready)
            task.num_tokens += num_tokens
            events.append(Embedded(task.job.request_id, vectors, num_tokens))

    def _is_due(self, task: Task) -> bool:
        """Whether it is to say that it goes on, and has not before."""
        now = self._clock.monotonic()
        is_due = now - task.said_at >= SIGN_S
        task.said_at = now if is_due else task.said_at
        return is_due

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
