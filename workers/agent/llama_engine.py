"""The engine: continuous batching over llama.cpp. See DESIGN.md for the life of a job and what must hold."""

from __future__ import annotations

import structlog
from msgspec.structs import replace

from paddler.clock import Clock
from paddler.cores import num_usable_cores
from paddler.engine import Done, Event, Job, NoFreeSlot, Preempted
from paddler.engine_settings import EngineSettings
from paddler.errors import EngineFailed
from paddler.wire.agent import Embed, Generate, Rerank
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.answerer import Answerer
from workers.agent.batches import Batches, Part, warm_up
from workers.agent.beginning import begun
from workers.agent.context import Context, Decoded
from workers.agent.embedder import MAX_INPUT, Embedder
from workers.agent.facts import engine_info
from workers.agent.kv_cache import KvCache
from workers.agent.limits import can_save_states, check_limits, num_parkable
from workers.agent.llama import Model
from workers.agent.options import ContextOptions
from workers.agent.pooling import abilities_of, pooling_of
from workers.agent.prompt import PromptEncoder, issues_of, template_of
from workers.agent.rejecting import rejected
from workers.agent.rendering import local_time
from workers.agent.scheduler import PREFILL_STEP_TARGET_S, STEP_TARGET_S, Scheduler
from workers.agent.sequence import Sequence
from workers.agent.shifting import check_can_shift
from workers.agent.signs import SignsOfLife, silent
from workers.agent.vision import Vision, open_projector
from workers.agent.with_tiers import OpenKeeper, WithTiers, behind_of

log = structlog.get_logger(__name__)

WAIT_S = 0.02
"""How long a step with nothing to compute waits for an image or a long text; a newcomer waits for it too."""
READ_S = 0.002
"""The same for saved states that are on their way: nobody says when they are there."""
PREPARE_S = 0.05
"""Time of a step for turning new jobs into tokens; at least one is done."""
EMBED_S = 0.05
"""What embeddings get of a step that prompts have filled."""


class LlamaEngine(WithTiers):
    """Implements `paddler.engine.Engine` with one llama.cpp context."""

    def __init__(
        self, model: Model, settings: EngineSettings, clock: Clock, open_keeper: OpenKeeper | None = None
    ) -> None:
        check_limits(settings)
        self._model = model
        self._clock = clock
        pooling, options = pooling_of(model, settings.pooling), ContextOptions(model, settings)
        num_threads = num_usable_cores() if settings.threads is None else settings.threads
        has_gpu, projection = settings.n_gpu_layers != 0, settings.multimodal_projection
        projector = open_projector(projection, model, num_threads=num_threads, uses_gpu=has_gpu)
        saves = can_save_states(model, settings)
        max_parked = num_parkable(model, settings, saves=saves)
        self._context = Context(
            model,
            num_sequences=settings.slots + max_parked + saves,
            context_size=settings.context_size,
            max_batch=min(settings.n_batch, settings.context_size),
            num_threads=num_threads,
            is_undivided=projector is not None and not projector.is_causal,
            options=options,
        )
        self._batches = Batches(self._context, projector)
        can_share = self._context.can_share()
        if not can_share:
            log.info("this model's memory cannot be shared: no prefix is reused", model=model.path.name)
        self._shifts = settings.context_shift
        check_can_shift(self._shifts, can_share)
        num_cells, max_batch = self._context.num_cells, self._context.max_batch
        self._max_tokens = min(num_cells, model.context_length or num_cells)
        parked, abilities = max_parked if can_share else 0, abilities_of(model, pooling)
        if projector is not None:
            abilities = (*abilities, "see")
        info = engine_info(model, settings, context_size=num_cells, max_parked=parked, abilities=abilities)
        template = template_of(model, local_time(clock), settings.chat_template)
        self.info = replace(info, issues=issues_of(model, template))
        self._encoder = PromptEncoder(model, template, name=self.info.model, max_tokens=self._max_tokens)
        self._vision = Vision(self._encoder, projector, fit=settings.image_resize_to_fit, max_whole=max_batch)
        self._answerer = Answerer(model, template, clock, name=self.info.model, vision=self._vision)
        token_s = warm_up(self._context, clock, model.vocab_size)
        self._scheduler = Scheduler(
            num_cells=num_cells, max_batch=max_batch, prefill_token_s=token_s, lone_step_s=settings.lone_step_s
        )
        self._embedder = Embedder(
            model,
            clock,
            pooling=pooling,
            max_tokens=min(self._max_tokens, MAX_INPUT),
            num_threads=num_threads,
            token_s=token_s,
            options=options,
        )
        self._keeper = (
            None if open_keeper is None or not (saves and can_share) else open_keeper(model, settings, num_cells)
        )
        behind = behind_of(self._context, clock, self._scheduler, self._keeper, settings.kv_ram if saves else 0)
        self._kv = KvCache(self._context, settings.slots, max_parked, can_share=can_share, open_behind=behind)
        self._started: dict[int, tuple[Job, Generate]] = {}
        self._sequences: dict[int, Sequence] = {}
        """Both by sequence id, the oldest first; the prompts of the former are not tokenised yet."""
        self._cancelled: set[int] = set()
        self._signs, self.num_preempted, self._has_computed = SignsOfLife(), 0, False

    @property
    def num_free_slots(self) -> int:
        num_generating = len(self._started) + len(self._sequences)
        return self.info.slots_total - num_generating - self._embedder.num_jobs - self._answerer.num_jobs

    def start(self, job: Job) -> None:
        if self.num_free_slots == 0:
            raise NoFreeSlot(f"no free slot for request {job.request_id}")
        if isinstance(job.payload, Generate):
            self._started[self._kv.acquire(job.request_id)] = job, job.payload
        elif isinstance(job.payload, Embed | Rerank):
            self._embedder.start(job, job.payload)
        else:
            self._answerer.start(job, job.payload)

    def cancel(self, request_id: str) -> None:
        self._answerer.cancel(request_id)
        self._embedder.cancel(request_id)
        jobs = {key: job for key, (job, _) in self._started.items()}
        jobs |= {key: sequence.job for key, sequence in self._sequences.items()}
        # Sequences, not requests: the same request may be started again before the next step.
        self._cancelled.update(key for key, job in jobs.items() if job.request_id == request_id)

    def use_template(self, source: str | None) -> None:
        template = template_of(self._model, local_time(self._clock), source)
        self.info = replace(self.info, issues=issues_of(self._model, template))
        self._encoder.use(template)
        self._answerer.use(template)

    def interrupt(self) -> None:
        """Make a running decode return early; its step has no effect and is repeated. From any thread."""
        self._context.interrupt()
        self._embedder.interrupt()

    def close(self) -> None:
        for sequence in self._sequences.values():
            sequence.close()
        self._sequences.clear()
        self._answerer.close()
        self._embedder.close()
        self._vision.close()
        self.close_tiers()
        self._context.close()

    def step(self) -> list[Event]:
        began_at = self._clock.monotonic()
        events = self._answerer.step() if self._answerer.num_jobs else []
        events += self._generate()
        started = [job for job, _ in self._started.values()]
        events += self._signs.look(silent(started, self._sequences.values()), self._clock.monotonic())
        if self._embedder.num_jobs:
            left_s = max(STEP_TARGET_S - (self._clock.monotonic() - began_at), EMBED_S)
            events += self._embedder.step(left_s if self._started or self._sequences else PREFILL_STEP_TARGET_S)
        elif not self._has_computed and not events:
            self._vision.wait(WAIT_S)
            self._answerer.wait(WAIT_S)
            self._kv.wait(READ_S)
        # Both are interrupted, and the one that did not compute would abort the step that comes next.
        self._context.forget_interrupt()
        if self._embedder.has_context:
            self._embedder.open().forget_interrupt()
        return events

    def _generate(self) -> list[Event]:
        events: list[Event] = []
        self._has_computed = False
        self._take_commands(events)
        self._prepare(events)
        target_s = self._scheduler.target_s([sequence.work for sequence in self._sequences.values()])
        used_s = self._kv.look_up(list(self._sequences.values()), target_s, self._scheduler.num_cells, events)
        for key, failure in self._vision.look(self._sequences.values()):
            self._end(key, failure, events)
        plan = self._scheduler.plan([sequence.work for sequence in self._sequences.values()], used_s)
        for key in plan.preempted:
            self._preempt(key, events)
        for key in plan.admitted:
            events += self._kv.admit(self._sequences[key], self._scheduler.num_cells)
        if not plan.chunks:
            return events + self._kv.keep()
        events += self._kv.make_room(sum(chunk.num_tokens for chunk in plan.chunks), self._scheduler.num_cells)
        elapsed_s = 0.0
        for part in self._batches.parts(plan, self._sequences):
            part_s = self._compute(part, events)
            if part_s is None:
                return events
            elapsed_s += part_s
        self._scheduler.observe(plan, elapsed_s)
        events += self._kv.keep()
        return events

    def _compute(self, part: Part, events: list[Event]) -> float | None:
        """One decode and its tokens; returns how long the decode took, None when it has no effect."""
        outputs = self._batches.fill(part, self._sequences)
        started_at = self._clock.monotonic()
        decoded = self._batches.decode(part)
        self._has_computed = True
        if decoded is not Decoded.OK:
            self._undo(part, decoded, events)
            return None
        elapsed_s = self._clock.monotonic() - started_at
        for chunk in part.chunks:
            self._sequences[chunk.key].work.num_cached += chunk.num_tokens
            self._kv.grow(chunk.key, chunk.num_tokens)
        self._sample(outputs, events)
        return elapsed_s

    def _take_commands(self, events: list[Event]) -> None:
        for key in self._cancelled:
            if key in self._sequences:
                self._end(key, FinishReason.CANCELLED, events)
            else:
                self._vision.forget(key)
                self._kv.release(key)
                events.append(Done(self._started.pop(key)[0].request_id, FinishReason.CANCELLED, Usage()))
        self._cancelled.clear()

    def _prepare(self, events: list[Event]) -> None:
        """Turn started jobs into sequences, as far as the time allows."""
        deadline = self._clock.monotonic() + PREPARE_S
        for key, (job, payload) in list(self._started.items()):
            if not self._encoder.forms.are_made(payload, lambda: self._clock.monotonic() < deadline):
                break
            try:
                prompt = self._vision.read(key, payload)
                if prompt is None:
                    continue
                made = begun(job, payload, key, prompt, self._encoder, self._model, self._max_tokens, self._shifts)
            except Exception as failure:
                del self._started[key]
                self._kv.release(key)
                events.append(rejected(job, failure))
            else:
                del self._started[key]
                self._sequences[key] = made
                if made.finished is not None:
                    self._end(key, made.finished, events)
            if self._clock.monotonic() >= deadline:
                break

    def _sample(self, outputs: list[tuple[int, int]], events: list[Event]) -> None:
        if not outputs:
            return
        logits = self._context.logits()
        for row, (key, index) in enumerate(outputs):
            sequence = self._sequences[key]
            if not sequence.is_prefilled:
                events.append(sequence.prefilled())
            try:
                events.append(sequence.sample(self._context, index, logits[row]))
            except EngineFailed as failure:
                self._end(key, failure, events)
                continue
            if sequence.finished is not None:
                self._end(key, sequence.finished, events)
            elif sequence.must_shift:
                events += self._kv.shift(sequence)

    def _undo(self, part: Part, decoded: Decoded, events: list[Event]) -> None:
        """The batch was not computed. Interrupted: drop what is there of it. No room, although the cells were
        counted as free (memory of another kind than one cell a token): the next plan counts fewer."""
        if decoded is Decoded.ABORTED:
            for chunk in part.chunks:
                self._kv.take_back(self._sequences[chunk.key])
            return
        if self._kv.num_parked:
            events += self._kv.evict_all()
            return
        self._scheduler.shrink(self._kv.num_cells + part.batch.size - 1)
        running = [key for key, sequence in self._sequences.items() if sequence.work.is_admitted]
        if len(running) == 1:
            self._end(running[0], FinishReason.LENGTH, events)

    def _preempt(self, key: int, events: list[Event]) -> None:
        """Give a job back to the queue. Its cells stay as long as nobody else needs them, for its return."""
        sequence = self._sequences.pop(key)
        log.debug("preempted", request=sequence.job.request_id, num_tokens=sequence.work.num_cached)
        events.append(Preempted(sequence.job.request_id))
        events += self._kv.park(sequence)
        sequence.close()
        self.num_preempted += 1

    def _end(self, key: int, reason: FinishReason | EngineFailed, events: list[Event]) -> None:
        sequence = self._sequences.pop(key)
        is_done = isinstance(reason, FinishReason)
        events.append(sequence.done(reason) if is_done else rejected(sequence.job, reason))
        events += self._kv.park(sequence)
        sequence.close()
