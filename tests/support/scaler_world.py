"""A pool as a scaler is shown it, and what it decides. Nothing here waits."""

from __future__ import annotations

from typing import Any

from paddler.autoscale.effects import Effect, Say, Start
from paddler.autoscale.instance import STEADY_S, Phase
from paddler.autoscale.policy import Policy
from paddler.autoscale.scaler import Scaler
from paddler.autoscale.seen import Condition, Seen, SeenAgent

COOLDOWN_S = 60.0


class World:
    """A pool as the scaler is shown it: agents join, load and go as a test says. `now` is seconds."""

    def __init__(self, least: int = 0, most: int = 3, *, ends_with_us: bool = True, **policy: Any) -> None:
        self.policy = Policy(least=least, most=most, slots=4, cooldown_s=COOLDOWN_S, start_timeout_s=100, **policy)
        self.scaler = Scaler(self.policy, "auto", ends_with_us=ends_with_us)
        self.now, self.demand, self.version = 1000.0, 0, 1
        self.agents: dict[str, SeenAgent] = {}
        self.said: list[Say] = []

    def act(self, effects: list[Effect]) -> list[Effect]:
        self.said += [one for one in effects if isinstance(one, Say)]
        return [one for one in effects if not isinstance(one, Say)]

    def look(self, after_s: float = 0.0, demand: int | None = None) -> list[Effect]:
        self.now += after_s
        self.demand = self.demand if demand is None else demand
        seen = Seen(demand=self.demand, agents=tuple(self.agents.values()), version=self.version)
        return self.act(self.scaler.on_seen(seen, self.now))

    def joins(self, name: str, condition: Condition = Condition.READY, **fields: Any) -> None:
        values: dict[str, Any] = {"slots": 4, "requests": 0, "is_ours": True, **fields}
        self.agents[name] = SeenAgent(agent_id=f"id-{name}", name=name, condition=condition, **values)

    def starts(self, name: str, condition: Condition = Condition.READY, **fields: Any) -> None:
        """As the driver and the agent would have it."""
        assert self.act(self.scaler.on_started(name, self.now, pid=1)) == []
        self.joins(name, condition, **fields)

    def drained(self, name: str) -> None:
        self.joins(name, self.agents[name].condition, requests=self.agents[name].requests, is_draining=True)

    def run(self, *names: str) -> None:
        """A pool in which these are ready and steady."""
        self.demand = 4 * len(names)
        assert self.look() == [Start(name) for name in names]
        for name in names:
            self.starts(name)
        self.look()
        assert self.look(STEADY_S) == []

    def phase(self, name: str) -> Phase:
        return self.scaler.instances[name].phase
