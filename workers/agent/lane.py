"""Reading one agent's lane: new tickets as they are given, and those it was given but does not know."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from paddler.store.keys import GROUP


class Ticket(Struct, frozen=True):
    """A request given to this agent; (attempt, agent id) is the fence."""

    request_id: str
    attempt: int


async def read_new(client: Any, lane: str, agent_id: str, *, count: int, block_ms: int) -> list[Ticket]:
    """Step 3: wait for tickets. `client` is a connection of its own; a `block_ms` of 0 would mean for ever."""
    return await _read(client, lane, agent_id, ">", count=count, block=block_ms)


async def read_pending(client: Any, lane: str, agent_id: str) -> list[Ticket]:
    """Tickets delivered and not yet settled: a connection may have been lost while it carried them."""
    return await _read(client, lane, agent_id, "0", count=None, block=None)


async def _read(
    client: Any, lane: str, agent_id: str, start: str, *, count: int | None, block: int | None
) -> list[Ticket]:
    answer = await client.xreadgroup(GROUP, agent_id, {lane: start}, count=count, block=block)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = [entry for _lane, found in answer for entry in found]
    # An entry that was deleted while pending is listed without fields.
    return [Ticket(fields[b"id"].decode(), int(fields[b"attempt"])) for _entry, fields in entries if fields]
