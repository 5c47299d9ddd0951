"""Ids of events, from which a client goes on: `<request id>:<journal offset behind the event>`."""

from __future__ import annotations

from paddler.errors import InvalidField

LAST_EVENT_ID = "Last-Event-ID"
MAX_OFFSET = 2**32 - 1


def read_offset(event_id: str, request_id: str) -> int:
    """The journal offset of an event's id, `<request id>:<offset>` or the offset alone. Raises `InvalidField`."""
    named, colon, text = event_id.strip().rpartition(":")
    if not text and not colon:
        return 0
    is_ours = named == request_id if colon else True
    if not (is_ours and text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_OFFSET):
        raise InvalidField(
            f"`{LAST_EVENT_ID}` must be the id of an event of this request, {request_id}:<offset>.",
            param=LAST_EVENT_ID,
        )
    return int(text)
