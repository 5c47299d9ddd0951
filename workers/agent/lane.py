"""Reading one agent's lane: new tickets as they are given, and those it was given but does not know."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from paddler.store.keys import GROUP
from paddler.store.pipe import Pipe, Value


class Ticket(Struct, frozen=True):
    """A request given to this agent; (attempt, agent id) is the fence. `payload`: that of a request that has never been
    opened, if it is small."""

    request_id: str
    attempt: int
    payload: bytes | None = None


async def read_new(pipe: Pipe, lane: str, agent_id: str, *, count: int, block_ms: int) -> list[Ticket]:
    """Step 3: wait for tickets. `pipe` is one of its own; a `block_ms` of 0 would mean for ever."""
    return await _read(pipe, "COUNT", count, "BLOCK", block_ms, "STREAMS", lane, ">", agent_id=agent_id)


async def read_pending(pipe: Pipe, lane: str, agent_id: str) -> list[Ticket]:
    """Tickets delivered and not yet settled: a connection may have been lost while it carried them."""
    return await _read(pipe, "STREAMS", lane, "0", agent_id=agent_id)


async def _read(pipe: Pipe, *options: Value, agent_id: str) -> list[Ticket]:
    answer: list[tuple[bytes, list[Any]]] | None = await pipe.call("XREADGROUP", "GROUP", GROUP, agent_id, *options)
    tickets: list[Ticket] = []
    for _lane, entries in answer or ():
        for _entry, fields in entries:
            # An entry that was deleted while pending is listed without fields.
            if fields:
                pairs = dict(zip(fields[::2], fields[1::2], strict=True))
                tickets.append(Ticket(pairs[b"id"].decode(), int(pairs[b"attempt"]), pairs.get(b"payload")))
    return tickets
