"""The engine of a model that only embeds: no generation beside it, no KV cache of a conversation. See DESIGN.md."""

from __future__ import annotations

import structlog

from paddler.clock import Clock
from paddler.cores import num_usable_cores
from paddler.engine import Event, Job, KeepsNoStates, ModelError, NoFreeSlot
from paddler.engine_settings import EngineSettings
from paddler.errors import InvalidField
from paddler.wire.agent import Embed, Generate, Rerank
from workers.agent.answerer import Answerer
from workers.agent.embedder import MAX_INPUT, Embedder
from workers.agent.facts import engine_info
from workers.agent.llama import Model, Pooling
from workers.agent.options import ContextOptions
from workers.agent.pooling import abilities_of, pooling_of
from workers.agent.prompt import template_of
from workers.agent.rejecting import rejected
from workers.agent.rendering import local_time

log = structlog.get_logger(__name__)

MAX_SLOTS = 256
STEP_S = 0.2
WAIT_S = 0.02
"""How long a step with nothing to compute waits for a long text; a newcomer waits for it too."""
SLOW_STEP_S = 1.0
"""The longest input that takes longer than this as a whole is worth a line in the log: the lease is 5 s."""


def make_embedding_engine(model: Model, settings: EngineSettings, clock: Clock) -> EmbeddingEngine:
    """Raises `ModelError`."""
    if settings.context_shift:
        raise ModelError(
            "context_shift is set, but this model only embeds, and an input is never longer than its context: leave "
            "--context-shift out",
            kind="SettingsInvalid",
        )
    if settings.context_size > MAX_INPUT:
        log.info("no input may be as long as the context that is set", asked=settings.context_size, most=MAX_INPUT)
    return EmbeddingEngine(
        model,
        clock,
        settings,
        num_threads=num_usable_cores() if settings.threads is None else settings.threads,
        pooling=pooling_of(model, settings.pooling),
        options=ContextOptions(model, settings),
    )


class EmbeddingEngine(KeepsNoStates):
    """Implements `paddler.engine.Engine` around an `Embedder`."""

    def __init__(
        self,
        model: Model,
        clock: Clock,
        settings: EngineSettings,
        *,
        num_threads: int,
        pooling: Pooling,
        options: ContextOptions | None = None,
    ) -> None:
        """`context_size` is the longest input in tokens, if the model can that many. Raises `ModelError`."""
        for what, value, most in (("slots", settings.slots, MAX_SLOTS), ("threads", num_threads, 512)):
            if not 1 <= value <= most:
                raise ModelError(f"{what} must be between 1 and {most}, not {value}", kind="SettingsInvalid")
        abilities = abilities_of(model, pooling)
        if not abilities:
            raise ModelError(
                f"{model.path} can only embed, and with --pooling none an agent does not: choose another",
                kind="SettingsInvalid",
            )
        context_size = min(settings.context_size, MAX_INPUT)
        max_tokens = min(context_size, model.context_length or context_size)
        self._embedder = Embedder(
            model,
            clock,
            pooling=pooling,
            max_tokens=max_tokens,
            num_threads=num_threads,
            token_s=1e-3,
            options=options,
        )
        token_s = self._embedder.warm_up()
        if not model.is_causal and token_s * max_tokens > SLOW_STEP_S:
            log.warning(
                "a long input keeps this agent busy for long; give it less --context-size or a longer --lease",
                seconds=round(token_s * max_tokens, 1),
                num_tokens=max_tokens,
            )
        self.info = engine_info(model, settings, context_size=max_tokens, abilities=abilities)
        self._name = self.info.model
        self._can = " and ".join(abilities)
        self._model, self._clock = model, clock
        template = template_of(model, local_time(clock), settings.chat_template)
        self._answerer = Answerer(model, template, clock, name=self._name)
        self._rejected: list[Event] = []

    @property
    def num_free_slots(self) -> int:
        return self.info.slots_total - self._embedder.num_jobs - self._answerer.num_jobs - len(self._rejected)

    def start(self, job: Job) -> None:
        if self.num_free_slots == 0:
            raise NoFreeSlot(f"no free slot for request {job.request_id}")
        if isinstance(job.payload, Generate):
            error = InvalidField(
                f"{self._name} generates no text, it can only {self._can}: choose another model for this", param="model"
            )
            self._rejected.append(rejected(job, error))
        elif isinstance(job.payload, Embed | Rerank):
            self._embedder.start(job, job.payload)
        else:
            self._answerer.start(job, job.payload)

    def cancel(self, request_id: str) -> None:
        self._answerer.cancel(request_id)
        self._embedder.cancel(request_id)

    def use_template(self, source: str | None) -> None:
        self._answerer.use(template_of(self._model, local_time(self._clock), source))

    def interrupt(self) -> None:
        """Make a running decode return early; its step has no effect and is repeated. From any thread."""
        self._embedder.interrupt()

    def step(self) -> list[Event]:
        events, self._rejected = self._rejected, []
        events += self._answerer.step()
        if self._embedder.num_jobs:
            events += self._embedder.step(STEP_S)
        elif not events:
            self._answerer.wait(WAIT_S)
        return events

    def close(self) -> None:
        self._rejected.clear()
        self._answerer.close()
        self._embedder.close()
