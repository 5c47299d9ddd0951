"""One agent that an autoscaler has started, or found: where it is between its start and its end."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from paddler.autoscale.seen import Condition, SeenAgent

STEADY_S = 30.0
"""An agent that was ready for so long does not fall for a reason that its successor would fall for at once."""


class Phase(StrEnum):
    """`LAUNCHING`: the driver is at it. `STARTING`: it is done, and the agent has not come into its pool yet. `UP`: it
    has. `DRAINING`: it gets no more requests. `STOPPING`: it has none, and the driver is at it, or will be. `STOPPED`:
    the driver is done, and the agent is to go from its pool."""

    LAUNCHING = "launching"
    STARTING = "starting"
    UP = "up"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Instance(Struct):
    """`since` is when its phase began. `agent` is what was last seen of it; `missing_since` since when it has not been.
    `is_known`: it has been in the pool. `is_undraining`: it is to take requests again. `stop_at`: when to stop it once
    more. `stuck_id`: the agent whose trouble has been told. `is_resumed`: the autoscaler before was starting it, which
    ended with that; `is_due`: the driver is to be called for it again."""

    name: str
    phase: Phase
    since: float
    pid: int | None = None
    host: str = ""
    agent: SeenAgent | None = None
    is_known: bool = False
    missing_since: float | None = None
    ready_since: float | None = None
    is_undraining: bool = False
    stop_at: float | None = None
    num_stops: int = 0
    stuck_id: str = ""
    is_resumed: bool = False
    is_due: bool = False

    def enter(self, phase: Phase, now: float) -> None:
        self.phase, self.since = phase, now

    def saw(self, agent: SeenAgent, now: float) -> None:
        self.agent, self.is_known, self.missing_since = agent, True, None
        self.host, self.pid = agent.host or self.host, agent.pid or self.pid
        if agent.condition is not Condition.READY:
            self.ready_since = None
        elif self.ready_since is None:
            self.ready_since = now

    @property
    def is_stuck(self) -> bool:
        return self.agent is not None and self.agent.condition is Condition.STUCK

    @property
    def is_useful(self) -> bool:
        """It serves, or will; one that is stuck keeps its place, as another would be stuck too. Of no use is one that
        leaves or that an operator drains."""
        if self.phase is not Phase.UP or self.agent is None:
            return self.phase in (Phase.LAUNCHING, Phase.STARTING)
        return not self.is_set_aside and self.agent.condition is not Condition.OTHER

    @property
    def is_set_aside(self) -> bool:
        """Somebody else than us drains it, and it stays: it counts for nothing until it is undrained."""
        if self.phase is not Phase.UP or self.agent is None or self.agent.condition is Condition.OTHER:
            return False
        return self.agent.is_draining and not self.is_undraining

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.UP and self.ready_since is not None

    def is_steady(self, now: float) -> bool:
        return self.ready_since is not None and now - self.ready_since >= STEADY_S
