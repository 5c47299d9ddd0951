"""What an autoscaler sees of a pool, in one look."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from paddler.autoscale.driver import Kinship
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import PoolQueue


class Condition(StrEnum):
    """`COMING`: it loads, or will. `STUCK`: it has said what keeps it from serving, or that nothing is wanted of it.
    `OTHER`: it leaves, or is of a version that knows more."""

    COMING = "coming"
    READY = "ready"
    STUCK = "stuck"
    OTHER = "other"


class SeenAgent(Struct, frozen=True, kw_only=True):
    """An agent whose lease holds. `slots` it has, or will have; `trouble` says why it is stuck. `is_draining`: it takes
    no more requests, whoever has asked for that."""

    agent_id: str
    name: str
    is_ours: bool
    condition: Condition
    slots: int
    requests: int
    host: str = ""
    pid: int = 0
    is_draining: bool = False
    trouble: str = ""

    @property
    def is_serving(self) -> bool:
        """It has slots for new requests, or will have."""
        return self.condition in (Condition.COMING, Condition.READY) and not self.is_draining


class Seen(Struct, frozen=True, kw_only=True):
    """`demand` are unfinished requests, `version` is that of the pool's desired state, 0 before the first."""

    demand: int
    agents: tuple[SeenAgent, ...] = ()
    version: int = 0

    @property
    def foreign_slots(self) -> int:
        return sum(agent.slots for agent in self.agents if agent.is_serving and not agent.is_ours)


def seen_of(pool: PoolQueue, version: int, kin: Mapping[str, Kinship], *, counts_batch: bool) -> Seen:
    """`kin` is of every agent that is not lost, by its id: one that lost its lease comes back, or never."""
    known = [(lane, kin.get(lane.agent, Kinship.GONE)) for lane in pool.lanes]
    return Seen(
        demand=pool.demand + (pool.demand_batch if counts_batch else 0),
        agents=tuple(
            _agent(lane, version, whose is Kinship.OURS) for lane, whose in known if whose is not Kinship.GONE
        ),
        version=version,
    )


def _agent(lane: Lane, version: int, is_ours: bool) -> SeenAgent:
    condition = _condition(lane, version)
    return SeenAgent(
        agent_id=lane.agent,
        name=lane.name,
        is_ours=is_ours,
        condition=condition,
        slots=lane.slots or lane.desired_slots,
        requests=lane.requests,
        host=lane.host,
        pid=lane.pid,
        is_draining=lane.is_draining,
        trouble=_trouble(lane) if condition is Condition.STUCK else "",
    )


def _condition(lane: Lane, version: int) -> Condition:
    match lane.state:
        case "ready" | "draining" | "drained":
            return Condition.READY
        case "loading":
            return Condition.COMING
        case "waiting":
            return Condition.STUCK if _is_wanted_nothing_of(lane, version) else Condition.COMING
        case "failed":
            # A download that is tried again may be there within the minute.
            return Condition.COMING if lane.state_application_status == "AttemptedAndRetrying" else Condition.STUCK
        case _:
            return Condition.OTHER


def _is_wanted_nothing_of(lane: Lane, version: int) -> bool:
    """Nobody has ever wanted a model, or it has followed the newest state, and that wants none."""
    if lane.download.filename:
        return False
    return version == 0 or (lane.state_application_status == "Applied" and lane.desired_version == version)


def _trouble(lane: Lane) -> str:
    if lane.issues:
        return f"{lane.issues[0].kind}: {lane.issues[0].detail}"
    return "the desired state wants no model" if lane.state == "waiting" else "it does not say why"
