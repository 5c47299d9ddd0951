"""What the address of `GET /v1/responses/{id}` asks for.

| parameter | what |
|---|---|
| `stream` | the events, from the first on, while it runs and afterwards |
| `starting_after` | those behind the event of this number |
| `include[]` | accepted: what was asked for when the response was made is there |

With the header `Last-Event-ID` they come from behind the event of that id.
"""

from __future__ import annotations

from msgspec import Struct

from api.body import AnyRequest
from api.event_ids import LAST_EVENT_ID, read_offset
from api.validation import unsupported
from paddler.errors import InvalidField

MAX_NUMBER = 2**53

_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_KNOWN = ("stream", "starting_after", "include", "include[]", "include_obfuscation")


class Retrieval(Struct, frozen=True):
    """`after` is the number of the last event that the client has had, -1 for none; `offset` that of the journal."""

    is_stream: bool
    after: int = -1
    offset: int = 0


def read_retrieval(request: AnyRequest, request_id: str) -> Retrieval:
    """Raises `InvalidField`."""
    query = request.query_params
    check_names(request, _KNOWN)
    is_stream = _flag(request, "stream")
    if _flag(request, "include_obfuscation"):
        raise unsupported("include_obfuscation")
    offset = read_offset(request.headers.get(LAST_EVENT_ID.lower(), ""), request_id)
    text = query.get("starting_after")
    if text is None:
        return Retrieval(is_stream, offset=offset)
    if not is_stream:
        raise InvalidField("`starting_after` needs `stream` to be true.", param="starting_after")
    return Retrieval(is_stream, read_number("starting_after", text, least=0, most=MAX_NUMBER), offset)


def check_names(request: AnyRequest, known: tuple[str, ...]) -> None:
    """Raises `InvalidField` for a parameter that is none of these."""
    for name in request.query_params:
        if name not in known:
            raise InvalidField(f"Unknown parameter `{name[:60]}`; leave it out.", param=name[:60])


def read_number(name: str, text: str, *, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and least <= int(text) <= most):
        raise InvalidField(f"`{name}` must be a whole number from {least} to {most}.", param=name)
    return int(text)


def _flag(request: AnyRequest, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in _FLAGS:
        raise InvalidField(f"`{name}` must be true or false.", param=name)
    return _FLAGS[text]
