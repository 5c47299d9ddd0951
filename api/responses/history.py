"""The turns before a response: those of `previous_response_id`, from what is stored of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from api.body import MAX_AT_ONCE
from api.responses.answers import request_id_of_response
from api.responses.call import ResponseCall
from api.responses.item_schema import Item
from api.responses.items import items_json
from api.responses.turns import resolve_references, turn_items
from paddler.errors import InvalidField, RequestNotFound
from paddler.jobs.responses import Responses, Turn
from paddler.wire.agent import Generate
from paddler.wire.stored import StoredResponse

MAX_TURNS = 256
MAX_TURNS_AT_ONCE = 8
"""Are read while other streams wait; more in a thread."""
MAX_BYTES = 32 * 1024 * 1024
"""Of the items that clients have sent for all turns of a conversation together."""

PARAM = "previous_response_id"


class Prepared(Struct, frozen=True):
    """What goes to the queue, and what is stored beside it."""

    payload: Generate
    record: StoredResponse


async def prepare(call: ResponseCall, responses: Responses, tenant: str) -> Prepared:
    """Put a call together with the turns before it. Raises `InvalidField`, also for a turn that is not there (any
    more), and `QueueUnavailable`."""
    ancestors: tuple[str, ...] = ()
    num_bytes = 0
    turns: list[Turn] = []
    if call.request.previous_response_id is not None:
        request_id = request_id_of_response(PARAM, call.request.previous_response_id)
        try:
            last = await responses.read(request_id, tenant)
        except RequestNotFound as error:
            raise InvalidField(f"`{PARAM}`: {error.message}", param=PARAM) from None
        ancestors, num_bytes = (*last.ancestors, request_id), last.num_bytes
        if len(ancestors) > MAX_TURNS:
            raise InvalidField(
                f"`{PARAM}`: the conversation has {len(ancestors)} turns, more than {MAX_TURNS}; send what matters of "
                "it as `input`.",
                param=PARAM,
            )
        turns = _checked(ancestors, await responses.turns(ancestors, tenant))
    items = await resolve_references(call.items, responses, tenant)
    data = items_json(items)
    num_bytes += len(data)
    if ancestors and num_bytes > MAX_BYTES:
        raise InvalidField(
            f"`{PARAM}`: the conversation's input has {num_bytes} bytes, more than {MAX_BYTES}; send what matters of "
            "it as `input`.",
            param=PARAM,
        )
    record = StoredResponse(data, ancestors, num_bytes)
    if num_bytes <= MAX_AT_ONCE and len(turns) <= MAX_TURNS_AT_ONCE:
        return Prepared(_payload(call, items, turns), record)
    return Prepared(await asyncio.to_thread(_payload, call, items, turns), record)


def _checked(ancestors: Sequence[str], turns: Sequence[Turn | None]) -> list[Turn]:
    found: list[Turn] = []
    for request_id, turn in zip(ancestors, turns, strict=True):
        if turn is None:
            raise InvalidField(
                f"`{PARAM}`: an earlier response of this conversation, resp_{request_id}, is not stored any more.",
                param=PARAM,
            )
        if turn.state not in ("done", "cancelled"):
            why = "has failed" if turn.state == "failed" else "has not ended yet"
            raise InvalidField(f"`{PARAM}`: the response resp_{request_id} {why}.", param=PARAM)
        found.append(turn)
    return found


def _payload(call: ResponseCall, items: Sequence[Item], turns: Sequence[Turn]) -> Generate:
    return call.generate(items, [(PARAM, turn_items(turn)) for turn in turns])
