"""What is known of one request: read from Redis by id, on any balancer."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from paddler.clock import Clock
from paddler.errors import RequestNotFound
from paddler.ids import pool_of
from paddler.jobs.fleet_view import FleetView
from paddler.jobs.reply import Route
from paddler.store.client import Store
from paddler.store.keys import CLASSES, SIDES, PoolKeys
from paddler.wire.balancer import Answered, Failed, Finished, Tokens, Vectors, decode_frames


class Place(Struct, frozen=True):
    """Of a request that waits: how many are before it, and in how many ms it will begin at the pool's measured rate,
    None when nobody has measured."""

    position: int
    eta_ms: int | None


class RequestStatus(Struct, frozen=True, kw_only=True):
    """Times are ms since the epoch, by Redis's clock. `state` is waiting, assigned, running, done, failed or cancelled.

    While it waits, `position` is how many requests are before it and `estimated_wait_ms` what they need at the pool's
    measured rate; both are None otherwise, the latter also when nobody has measured. `tokens`, `vectors` or `answer`
    (to a question, as `wire.answers` has it) is what it has said so far; `end` and `error` are the two forms of its
    terminal frame."""

    request_id: str
    state: str
    request_class: str
    tenant: str
    is_background: bool
    is_cancelling: bool
    attempt: int
    opens: int
    deaths: int
    accepted_ms: float
    started_ms: float | None
    ended_ms: float | None
    start_deadline_ms: float | None
    label: bytes
    position: int | None = None
    estimated_wait_ms: int | None = None
    route: Route
    tokens: tuple[Tokens, ...]
    vectors: tuple[bytes, ...] = ()
    answer: bytes = b""
    end: Finished | None = None
    error: Failed | None = None


async def read_status(store: Store, views: FleetView, clock: Clock, request_id: str) -> RequestStatus:
    """Raises `RequestNotFound`, `ValueError` for what is no request id, and what Redis raises."""
    pool = pool_of(request_id)
    keys = store.pool(pool).keys
    pipe = store.redis.pipeline(transaction=True)
    pipe.hgetall(keys.request(request_id))
    pipe.get(keys.journal(request_id))
    answers: list[Any] = await pipe.execute()
    fields: dict[str, bytes] = {name.decode(): value for name, value in answers[0].items()}
    if not fields:
        raise not_found(request_id)
    route, tokens, vectors = Route(), list[Tokens](), list[bytes]()
    end: Finished | None = None
    error: Failed | None = None
    answer = b""
    for frame in decode_frames(answers[1] or b""):
        route.note(frame)
        match frame:
            case Tokens():
                tokens.append(frame)
            case Vectors():
                vectors += frame.vectors
                # A journal of vectors may have 32 MiB, whose copying takes 0.2 s; other streams go on meanwhile.
                await clock.sleep(0)
            case Answered(body):
                answer = body
            case Finished():
                end = frame
            case Failed():
                error = frame
            case _:
                pass
    state = fields["state"].decode()
    position = wait_ms = None
    if state == "waiting":
        position, wait_ms = await _place_in_line(store, views, pool, fields["queue"].decode(), request_id)
    deadline = float(fields.get("deadline", 0))
    return RequestStatus(
        request_id=request_id,
        state=state,
        request_class=fields["class"].decode(),
        tenant=fields["tenant"].decode(),
        is_background="background" in fields,
        is_cancelling="cancel" in fields and "ended" not in fields,
        attempt=int(fields["attempt"]),
        opens=int(fields.get("opens", "started" in fields)),
        deaths=int(fields.get("deaths", 0)),
        accepted_ms=float(fields["accepted"]),
        started_ms=float(fields["started"]) if "started" in fields else None,
        ended_ms=float(fields["ended"]) if "ended" in fields else None,
        start_deadline_ms=deadline or None,
        label=fields.get("label", b""),
        position=position,
        estimated_wait_ms=wait_ms,
        route=route,
        tokens=tuple(tokens),
        vectors=tuple(vectors),
        answer=answer,
        end=end,
        error=error,
    )


def not_found(request_id: str) -> RequestNotFound:
    return RequestNotFound(
        f"no request {request_id!r} is known; what has ended is forgotten after ten minutes, and a crash may "
        "cost Redis its last second.",
        param="id",
    )


async def _place_in_line(
    store: Store, views: FleetView, pool: str, queue: str, request_id: str
) -> tuple[int | None, int | None]:
    keys: PoolKeys = store.pool(pool).keys
    pipe = store.redis.pipeline(transaction=True)
    pipe.zrank(keys.order(queue), request_id)
    pipe.mget(*map(keys.backlog, SIDES))
    pipe.scard(keys.aside())
    for request_class in CLASSES:
        pipe.zcard(keys.order(request_class))
    rank, backlogs, num_background, *lengths = await pipe.execute()
    if rank is None:
        return None, None
    position: int = rank + sum(lengths[: CLASSES.index(queue)])
    rate = (await views.pool(pool)).rate
    if not rate:
        return position, None
    # The foreground comes before almost all of the background; one of each side costs what they cost on average.
    foreground, background = (int(tokens or 0) for tokens in backlogs)
    num_foreground = sum(lengths) - num_background
    ahead = foreground * min(position / max(1, num_foreground), 1)
    ahead += background * max(position - num_foreground, 0) / max(1, num_background)
    return position, round(ahead / rate * 1000)
