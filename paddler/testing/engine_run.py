"""Drive an engine by hand, step by step, and record what it says; checks what holds for every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct, field, structs

from paddler.engine import Done, Embedded, Engine, Event, Job, Preempted, Progress, Rejected, Retained, Working
from paddler.vectors import NUMBER_SIZE
from paddler.wire.agent import Embed, Generate, Rerank, Sampling
from paddler.wire.balancer import FinishReason, TokenLogprob


class Outcome(Struct):
    """What came of one job. `steps` are the numbers of the steps that gave a token or vectors, `num_preempted` how
    often it lost its slot on the way. `vectors` are those of an embedding, `num_tokens` of its inputs."""

    ids: list[int] = field(default_factory=list[int])
    pieces: list[str] = field(default_factory=list[str])
    steps: list[int] = field(default_factory=list[int])
    end: Done | Rejected | None = None
    num_preempted: int = 0
    vectors: list[bytes] = field(default_factory=list[bytes])
    num_tokens: list[int] = field(default_factory=list[int])
    mus: list[float | None] = field(default_factory=list[float | None])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def done(self) -> Done:
        assert isinstance(self.end, Done), self.end
        return self.end

    @property
    def rejected(self) -> Rejected:
        assert isinstance(self.end, Rejected), self.end
        return self.end


class EngineRun:
    """`outcomes` by request id. What the engine preempts comes back, as from the queue: when another job has ended."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.outcomes: dict[str, Outcome] = {}
        self.retained: dict[str, list[Retained]] = {}
        """By request id, all that was said."""
        self.num_steps = 0
        self._jobs: dict[str, Job] = {}
        self._preempted: list[str] = []
        self._may_return = False

    def start(self, job: Job) -> Outcome:
        self.engine.start(job)
        self._jobs[job.request_id] = job
        self.outcomes[job.request_id] = Outcome()
        return self.outcomes[job.request_id]

    def step(self) -> list[Event]:
        self._bring_back()
        events = self.engine.step()
        self.num_steps += 1
        for event in events:
            if isinstance(event, Working):
                continue
            if isinstance(event, Retained):
                self.retained.setdefault(event.request_id, []).append(event)
                continue
            outcome = self.outcomes[event.request_id]
            assert outcome.end is None, f"{event} after the end"
            match event:
                case Progress(_, ids, text, mu, logprobs):
                    outcome.ids += ids
                    outcome.pieces.append(text)
                    outcome.mus.append(mu)
                    outcome.logprobs += logprobs
                    outcome.steps.append(self.num_steps)
                case Embedded():
                    outcome.vectors += event.vectors
                    outcome.num_tokens += event.num_tokens
                    outcome.steps.append(self.num_steps)
                case Done():
                    outcome.pieces.append(event.text)
                    outcome.end = event
                    self._may_return = True
                case Rejected():
                    outcome.end = event
                    self._may_return = True
                case Preempted():
                    outcome.num_preempted += 1
                    self._preempted.append(event.request_id)
                    self._may_return = False
        return events

    def _bring_back(self) -> None:
        is_empty = self.engine.num_free_slots == self.engine.info.slots_total
        while self._preempted and self.engine.num_free_slots and (self._may_return or is_empty):
            request_id = self._preempted.pop(0)
            outcome = self.outcomes[request_id]
            job = structs.replace(
                self._jobs[request_id],
                resume_ids=tuple(outcome.ids),
                resume_text=outcome.text,
                embedded=tuple(outcome.num_tokens),
                resume_mu=outcome.mus[-1] if outcome.mus else None,
                vector_size=len(outcome.vectors[0]) // NUMBER_SIZE if outcome.vectors else 0,
                resume_format=next((one.format for one in self.retained.get(request_id, ()) if one.format), None),
            )
            self.engine.start(job)

    def step_until(self, is_reached: Callable[[], bool], max_steps: int = 5000) -> None:
        for _ in range(max_steps):
            if is_reached():
                return
            self.step()
        raise AssertionError(f"not reached in {max_steps} steps")

    def finish(self, *jobs: Job) -> list[Outcome]:
        """Run these jobs, as many at once as there are slots, and everything started before, to the end."""
        waiting = list(jobs)

        def has_ended() -> bool:
            while waiting and self.engine.num_free_slots:
                self.start(waiting.pop(0))
            return not waiting and all(outcome.end is not None for outcome in self.outcomes.values())

        self.step_until(has_ended)
        return [self.outcomes[job.request_id] for job in jobs]


def make_job(
    request_id: str,
    prompt: str,
    *,
    max_tokens: int | None = 16,
    stop: tuple[str, ...] = (),
    sampling: Sampling | None = None,
    logprobs: int | None = None,
    resume: Outcome | None = None,
    resume_at: int = 0,
) -> Job:
    """A job with a raw prompt, greedy without penalties unless said. With `resume` it continues that outcome as
    if its agent had been lost after `resume_at` tokens."""
    sampling = sampling or Sampling(temperature=0, penalty_last_n=0)
    payload = Generate(prompt=prompt, max_tokens=max_tokens, stop=stop, sampling=sampling, logprobs=logprobs)
    if resume is None:
        return Job(request_id=request_id, payload=payload)
    text = "".join(resume.pieces[:resume_at])
    return Job(
        request_id=request_id,
        payload=payload,
        resume_ids=tuple(resume.ids[:resume_at]),
        resume_text=text,
        resume_mu=resume.mus[resume_at - 1] if resume_at else None,
    )


def embed_job(
    request_id: str, *inputs: str, embedded: tuple[int, ...] = (), vector_size: int = 0, **fields: Any
) -> Job:
    payload = Embed(inputs=inputs, **fields)
    return Job(request_id=request_id, payload=payload, embedded=embedded, vector_size=vector_size)


def rerank_job(
    request_id: str, query: str, *documents: str, embedded: tuple[int, ...] = (), vector_size: int = 0, first: int = 0
) -> Job:
    payload = Rerank(query=query, documents=documents, first=first)
    return Job(request_id=request_id, payload=payload, embedded=embedded, vector_size=vector_size)


def is_stop(outcome: Outcome) -> bool:
    return outcome.done.reason is FinishReason.STOP
