"""`GET /v1/responses/{id}/input_items`: what a client sent for a response, in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from api.body import AnyRequest
from api.operation import any_of
from api.responses.item_schema import CallItem, CallOutputItem, Item, MessageItem, Part, ReasoningItem
from api.responses.items import stored_items
from api.responses.query import check_names, read_number
from api.responses.turns import input_id
from paddler.errors import InvalidField
from paddler.wire.stored import StoredResponse

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

_KNOWN = ("after", "include", "include[]", "limit", "order")


ITEMS = (MessageItem, CallItem, CallOutputItem, ReasoningItem)
Listed = Annotated[object, any_of(*ITEMS)]


class ItemList(Struct):
    object: str
    data: Sequence[Listed]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Page(Struct, frozen=True):
    """`after` is the id of the last item of the page before."""

    limit: int
    is_descending: bool
    after: str | None

    def of(self, request_id: str, record: StoredResponse) -> bytes:
        """JSON. Raises `InvalidField` when `after` is none of the items."""
        items = _listed(request_id, stored_items(record.items))
        if self.is_descending:
            items.reverse()
        begin = 0
        if self.after is not None:
            ids = [item["id"] for item in items]
            if self.after not in ids:
                raise InvalidField("`after`: no item of this response has this id.", param="after")
            begin = ids.index(self.after) + 1
        data = items[begin : begin + self.limit]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return msgspec.json.encode(ItemList("list", data, first, last, begin + self.limit < len(items)))


def read_page(request: AnyRequest) -> Page:
    """Raises `InvalidField`."""
    check_names(request, _KNOWN)
    query = request.query_params
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidField("`order` must be asc or desc.", param="order")
    limit = read_number("limit", query.get("limit", str(DEFAULT_LIMIT)), least=1, most=MAX_LIMIT)
    return Page(limit, order == "desc", query.get("after"))


def _listed(request_id: str, items: Sequence[Item]) -> list[dict[str, Any]]:
    """With a type, a status and an id each; a text is a part."""
    return [_listed_item(input_id(request_id, number, item), item) for number, item in enumerate(items)]


def _listed_item(item_id: str, item: Item) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(item)
    if isinstance(item, MessageItem) and isinstance(item.content, str):
        kind = "output_text" if item.role == "assistant" else "input_text"
        told["content"] = [msgspec.to_builtins(Part(kind, item.content))]
    return {"type": "message", "status": "completed", "id": item_id} | told
