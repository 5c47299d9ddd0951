"""What has happened to one request so far, by the times that Redis keeps."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from paddler.clock import Clock
from paddler.ids import pool_of
from paddler.jobs.fleet_view import FleetView
from paddler.jobs.status import RequestStatus, read_status
from paddler.store.client import Store
from paddler.store.keys import PoolKeys

EventName = Literal["accepted", "buffered", "delivered", "opened", "first_token", "handed_over", "ended"]

_FIELDS = ("delivered", "first", "returned", "returns", "agent", "tokens", "requeued", "queue")


class Happening(Struct, frozen=True):
    """`at_ms` is since the epoch, by Redis's clock. `buffered`: no slot was free for it; `delivered`: it was given to
    an agent first; `handed_over`: it came back from one, the last time of `times`."""

    event: EventName
    at_ms: float
    times: int = 1


class Timeline(Struct, frozen=True, kw_only=True):
    """`agent` is who has it now. `prompt_tokens` are an estimate until an agent has counted them."""

    status: RequestStatus
    pool: str
    agent: str | None
    agent_name: str | None
    model: str | None
    served_as: str
    prompt_tokens: int
    now_ms: float
    events: list[Happening]


async def read_timeline(store: Store, views: FleetView, clock: Clock, request_id: str) -> Timeline:
    """Raises `RequestNotFound`, `ValueError` for what is no request id, and what Redis raises."""
    status = await read_status(store, views, clock, request_id)
    keys = store.pool(pool_of(request_id)).keys
    pipe = store.redis.pipeline(transaction=True)
    pipe.hmget(keys.request(request_id), *_FIELDS)
    pipe.time()
    row, (seconds, micros) = await pipe.execute()
    told: dict[str, bytes] = {name: value for name, value in zip(_FIELDS, row, strict=True) if value is not None}
    agent = told["agent"].decode() if "agent" in told else None
    name, model = await _told_by(store, keys, agent)
    is_given = status.state in ("assigned", "running")
    return Timeline(
        status=status,
        pool=keys.pool,
        agent=agent if is_given else None,
        agent_name=name or status.route.agent_name,
        model=model,
        served_as=told.get("queue", b"").decode() or status.request_class,
        prompt_tokens=status.route.prompt_tokens or int(told.get("tokens", 0)),
        now_ms=seconds * 1000 + micros / 1000,
        events=_events(status, told),
    )


async def _told_by(store: Store, keys: PoolKeys, agent: str | None) -> tuple[str | None, str | None]:
    if agent is None:
        return None, None
    redis: Any = store.redis
    found: list[bytes | None] = await redis.hmget(keys.agent(agent), "name", "model")
    name, model = (value.decode() if value else None for value in found)
    return name, model


def _events(status: RequestStatus, told: dict[str, bytes]) -> list[Happening]:
    def at(name: str) -> float | None:
        return float(told[name]) if name in told else None

    delivered = at("delivered")
    events = [Happening("accepted", status.accepted_ms)]
    # What meets a free slot is given away by the script that accepts it, at the same moment.
    if "requeued" in told or (status.state == "waiting" if delivered is None else delivered > status.accepted_ms):
        events.append(Happening("buffered", status.accepted_ms))
    dated: list[tuple[EventName, float | None, int]] = [
        ("delivered", delivered, 1),
        ("opened", status.started_ms, 1),
        ("first_token", at("first"), 1),
        ("handed_over", at("returned"), int(told.get("returns", 1))),
        ("ended", status.ended_ms, 1),
    ]
    later = [Happening(name, when, times) for name, when, times in dated if when is not None]
    return [*events, *sorted(later, key=lambda one: one.at_ms)]
