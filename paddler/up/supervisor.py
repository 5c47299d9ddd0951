"""What to do when a child starts, ends or is to stop: a pure state machine, events with their time in, effects out.

A child that ends is started again after a delay that doubles with each early end and is short again once the child
stayed up for `STEADY_S`. A child that refuses its settings (`REFUSALS`), or that ends before it was ever ready where
others wait for it, gets one more try; then everything stops, for repetition would not mend it.

Stopping goes by stages, lowest first: SIGTERM to the stage's children, SIGKILL to what is left after `STAGE_S`, then
the next stage. Three stages fit into 5 s.
"""

from __future__ import annotations

import signal
from enum import Enum, auto

from msgspec import Struct

FIRST_DELAY_S = 0.25
MAX_DELAY_S = 15.0
STEADY_S = 20.0
STAGE_S = 1.5
REFUSALS = frozenset({2, 78})  # click's usage error, EX_CONFIG of sysexits.h
MAX_REFUSALS = 2


class Spec(Struct, frozen=True, kw_only=True):
    """A child: how it is started and stopped.

    `awaits` names a child that must have been ready once before this one starts. `stop_stage` orders the stopping.
    `death_signal` is what the child gets when the supervisor itself dies. `keep_fds` stay open in the child. Output
    lines containing one of `hidden` are not shown. `may_end`: exit code 0 says that it was told to end (an operator has
    removed it), and is its end.
    """

    name: str
    command: tuple[str, ...]
    awaits: str | None = None
    stop_stage: int = 0
    death_signal: int = signal.SIGKILL
    keep_fds: tuple[int, ...] = ()
    hidden: tuple[str, ...] = ()
    may_end: bool = False


class Start(Struct, frozen=True):
    name: str


class Signal(Struct, frozen=True):
    """Send `number` to the child and everything it started."""

    name: str
    number: int


class Say(Struct, frozen=True):
    text: str
    is_error: bool = False


Effect = Start | Signal | Say


class Phase(Enum):
    WAITING = auto()  # for the child it awaits
    RUNNING = auto()
    DELAYED = auto()  # until the next try
    GONE = auto()


class _Child:
    def __init__(self, spec: Spec, has_waiters: bool) -> None:
        self.spec = spec
        self.has_waiters = has_waiters
        self.phase = Phase.WAITING
        self.was_ready = False
        self.started = 0.0
        self.next_start = 0.0
        self.num_early_ends = 0
        self.num_refusals = 0


class Supervisor:
    """One supervised set of children; the caller performs the effects and reports what happened."""

    def __init__(self, specs: list[Spec]) -> None:
        awaited = {spec.awaits for spec in specs}
        self._children = {spec.name: _Child(spec, spec.name in awaited) for spec in specs}
        self._stage: int | None = None
        self._stage_end: float | None = None
        self._killed: set[str] = set()
        self.is_stopping = False
        self.failure: str | None = None
        """Why everything stops, when it was not asked for."""

    @property
    def is_done(self) -> bool:
        return self.is_stopping and all(child.phase is Phase.GONE for child in self._children.values())

    @property
    def running(self) -> list[str]:
        return [name for name, child in self._children.items() if child.phase is Phase.RUNNING]

    def next_time(self) -> float | None:
        """When `on_time` is due; None when nothing is waited for."""
        times = [child.next_start for child in self._children.values() if child.phase is Phase.DELAYED]
        if self._stage_end is not None:
            times.append(self._stage_end)
        return min(times, default=None)

    def on_begin(self, now: float) -> list[Effect]:
        return [self._start(child, now) for child in self._children.values() if child.spec.awaits is None]

    def on_ready(self, name: str, now: float) -> list[Effect]:
        """The child answers: start who waits for it. Later calls have no effect."""
        child = self._children[name]
        child.was_ready = True
        return [
            self._start(other, now)
            for other in self._children.values()
            if other.spec.awaits == name and other.phase is Phase.WAITING and not self.is_stopping
        ]

    def on_exit(self, name: str, status: int, now: float, last_lines: tuple[str, ...] = ()) -> list[Effect]:
        """The child ended: `status` is its exit code, or minus the number of the signal that killed it."""
        child = self._children[name]
        if self.is_stopping:
            child.phase = Phase.GONE
            return self._advance(now)
        if status == 0 and child.spec.may_end:
            child.phase = Phase.GONE
            return [Say(f"{name} has ended, as it was told to; it is not started again")]
        is_refusal = status in REFUSALS or (child.has_waiters and not child.was_ready)
        child.num_refusals = child.num_refusals + 1 if is_refusal else 0
        if child.num_refusals >= MAX_REFUSALS:
            child.phase = Phase.GONE
            self.failure = "\n".join([f"{name} {describe(status)} again; stopping.", *last_lines])
            return [Say(self.failure, is_error=True), *self.on_stop(now)]
        child.num_early_ends = 1 if now - child.started >= STEADY_S else child.num_early_ends + 1
        delay = min(FIRST_DELAY_S * 2 ** (child.num_early_ends - 1), MAX_DELAY_S)
        child.phase, child.next_start = Phase.DELAYED, now + delay
        return [Say(f"{name} {describe(status)}; starting it again in {delay:g} s", is_error=True)]

    def on_stop(self, now: float) -> list[Effect]:
        """Asked to stop. Asked again: kill what is left."""
        if self.is_stopping:
            self._killed.update(self.running)
            return [*self._kill(self.running), *self._advance(now)]
        self.is_stopping = True
        for child in self._children.values():
            if child.phase is not Phase.RUNNING:
                child.phase = Phase.GONE
        return self._advance(now)

    def on_time(self, now: float) -> list[Effect]:
        """Something is due: a start, or the end of a stage."""
        if not self.is_stopping:
            children = self._children.values()
            due = [child for child in children if child.phase is Phase.DELAYED and child.next_start <= now]
            return [self._start(child, now) for child in due]
        if self._stage_end is None or now < self._stage_end:
            return []
        late = self._at_stage()
        if late:
            self._killed.update(late)
            said = [Say(f"killing {name}, which did not stop", is_error=True) for name in late]
            return [*said, *self._kill(late), *self._advance(now)]
        left = self.running
        for name in left:
            self._children[name].phase = Phase.GONE
        self._stage_end = None
        return [Say(f"{name} could not be killed and is left behind", is_error=True) for name in left]

    def _start(self, child: _Child, now: float) -> Effect:
        child.phase, child.started = Phase.RUNNING, now
        return Start(child.spec.name)

    def _advance(self, now: float) -> list[Effect]:
        """Go to the lowest stage that has children which have not been killed, unless that is where we are."""
        stages = {self._children[name].spec.stop_stage for name in self.running if name not in self._killed}
        if not stages:
            if not self.running:
                self._stage_end = None
            elif self._stage is not None:
                # Only killed children are left: the kernel has one more stage's time to end them.
                self._stage, self._stage_end = None, now + STAGE_S
            return []
        if min(stages) == self._stage:
            return []
        self._stage, self._stage_end = min(stages), now + STAGE_S
        return [Signal(name, signal.SIGTERM) for name in self._at_stage()]

    def _at_stage(self) -> list[str]:
        running = (name for name in self.running if name not in self._killed)
        return [name for name in running if self._children[name].spec.stop_stage == self._stage]

    def _kill(self, names: list[str]) -> list[Effect]:
        return [Signal(name, signal.SIGKILL) for name in names]


def describe(status: int) -> str:
    """`exited with code 1` or `was killed by SIGKILL`."""
    if status >= 0:
        return f"exited with code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
