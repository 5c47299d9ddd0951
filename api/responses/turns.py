"""Items of stored responses, as they are input again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from api.responses.item_schema import CallItem, Item, MessageItem, ReasoningItem, ReasoningText, ReferenceItem
from api.responses.items import stored_items
from api.responses.output import OutputItem, read_output
from paddler.errors import InvalidField
from paddler.ids import pool_of
from paddler.jobs.responses import Responses, Turn

MAX_REFERRED = 256
"""Responses that the references of one input may be to."""

_ID = re.compile(r"(?:msg|rs|fc|fco)_(?P<request>.+)_(?P<place>(?:in)?[0-9]{1,4})")


def turn_items(turn: Turn) -> list[Item]:
    """What a turn adds to the conversation: what its client sent, and what the model answered."""
    return [*stored_items(turn.record.items), *filter(None, _answered(turn))]


async def resolve_references(items: Sequence[Item | ReferenceItem], responses: Responses, tenant: str) -> list[Item]:
    """The items with what they refer to in its place: items that a response has put out, or that were its input. Raises
    `InvalidField` for one that is not stored (any more)."""
    wanted = {index: item.id for index, item in enumerate(items) if isinstance(item, ReferenceItem)}
    found = await _items_of({_request_of(index, item_id) for index, item_id in wanted.items()}, responses, tenant)
    resolved: list[Item] = []
    for index, item in enumerate(items):
        if not isinstance(item, ReferenceItem):
            resolved.append(item)
        elif item.id in found:
            resolved += filter(None, [found[item.id]])
        else:
            raise _not_stored(index, item.id)
    return resolved


async def _items_of(request_ids: set[str], responses: Responses, tenant: str) -> dict[str, Item | None]:
    """By the ids that clients know them by; None is one that says nothing."""
    if len(request_ids) > MAX_REFERRED:
        raise InvalidField(f"`input` refers to items of more than {MAX_REFERRED} responses.", param="input")
    found: dict[str, Item | None] = {}
    for turn in await responses.turns(sorted(request_ids), tenant):
        if turn is not None:
            for number, item in enumerate(stored_items(turn.record.items)):
                found[input_id(turn.request_id, number, item)] = item
            found |= zip((one.id for one in _output(turn)), _answered(turn), strict=True)
    return found


def input_id(request_id: str, number: int, item: Item) -> str:
    """Its own, or one made from its place."""
    if item.id is not None:
        return item.id
    match item:
        case MessageItem():
            prefix = "msg"
        case CallItem():
            prefix = "fc"
        case ReasoningItem():
            prefix = "rs"
        case _:
            prefix = "fco"
    return f"{prefix}_{request_id}_in{number}"


def _request_of(index: int, item_id: str) -> str:
    found = _ID.fullmatch(item_id)
    try:
        if found is None:
            raise ValueError
        pool_of(found["request"])
    except ValueError:
        raise _not_stored(index, item_id) from None
    return found["request"]


def _not_stored(index: int, item_id: str) -> InvalidField:
    param = f"input[{index}].id"
    return InvalidField(
        f"`{param}`: no item {item_id[:100]!r} is stored (any more); send the item itself.", param=param
    )


def _output(turn: Turn) -> list[OutputItem]:
    output = read_output(turn.request_id, turn.tokens, turn.format)
    output.finish(is_whole=True)
    return output.items


def _answered(turn: Turn) -> list[Item | None]:
    return [_as_input(item) for item in _output(turn)]


def _as_input(item: OutputItem) -> Item | None:
    match item.kind:
        case "message":
            return MessageItem("assistant", item.text) if item.text else None
        case "reasoning":
            return ReasoningItem([], [ReasoningText("reasoning_text", item.text)])
        case "function_call":
            return CallItem(item.call_id, item.name, item.text)
