"""Drive an engine by hand, step by step, and record what it says; checks what holds for every engine."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from paddler.engine import Done, Engine, Event, Job, Preempted, Progress, Rejected, Retained
from paddler.wire.agent import Generate, Sampling
from paddler.wire.balancer import FinishReason


class Outcome(Struct):
    """What came of one job. `steps` are the numbers of the steps that gave a token."""

    ids: list[int] = field(default_factory=list[int])
    pieces: list[str] = field(default_factory=list[str])
    steps: list[int] = field(default_factory=list[int])
    end: Done | Rejected | None = None

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
    """`outcomes` by request id."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.outcomes: dict[str, Outcome] = {}
        self.num_steps = 0

    def start(self, job: Job) -> Outcome:
        self.engine.start(job)
        self.outcomes[job.request_id] = Outcome()
        return self.outcomes[job.request_id]

    def step(self) -> list[Event]:
        events = self.engine.step()
        self.num_steps += 1
        for event in events:
            outcome = self.outcomes[event.request_id]
            if isinstance(event, Retained):
                continue
            assert outcome.end is None, f"{event} after the end"
            match event:
                case Progress(_, ids, text):
                    outcome.ids += ids
                    outcome.pieces.append(text)
                    outcome.steps.append(self.num_steps)
                case Done():
                    outcome.pieces.append(event.text)
                    outcome.end = event
                case Rejected():
                    outcome.end = event
                case Preempted():
                    raise AssertionError(f"{event}: nobody takes it back here")
        return events

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
    resume: Outcome | None = None,
    resume_at: int = 0,
) -> Job:
    """A job with a raw prompt, greedy without penalties unless said. With `resume` it continues that outcome as
    if its agent had been lost after `resume_at` tokens."""
    sampling = sampling or Sampling(temperature=0, penalty_last_n=0)
    payload = Generate(prompt=prompt, max_tokens=max_tokens, stop=stop, sampling=sampling)
    if resume is None:
        return Job(request_id=request_id, payload=payload)
    text = "".join(resume.pieces[:resume_at])
    return Job(
        request_id=request_id,
        payload=payload,
        resume_ids=tuple(resume.ids[:resume_at]),
        resume_text_length=len(text),
    )


def is_stop(outcome: Outcome) -> bool:
    return outcome.done.reason is FinishReason.STOP
