"""Headers that say how a request is to be treated, the same on every route that submits one.

| header | what |
|---|---|
| `X-Session-ID`, `X-Conversation-Id` | a conversation: breaks ties between agents; after `prompt_cache_key` |
| `X-Request-Timeout` | ms within which a slot must become free |
| `X-Request-Class` | `interactive`, `normal` or `batch` |
| `Idempotency-Key` | the same key, route and body again: the same request and its whole stream |
| `X-On-Disconnect` | `cancel` (the default) or `wait`: what becomes of it when the connection breaks |
| `Last-Event-ID` | refused: a stream goes on at `/v1/requests/<id>/stream` |
"""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec.structs import replace

from api.access.caller import Caller, caller_of
from api.body import AnyRequest
from api.event_ids import LAST_EVENT_ID
from api.fingerprint import fingerprint
from paddler.errors import InvalidField
from paddler.jobs.gateway import Submit
from paddler.store.keys import CLASSES

MAX_START_TIMEOUT_MS = 86_400_000
MAX_HINT_LENGTH = 1024
MAX_KEY_LENGTH = 255

ON_DISCONNECT = "X-On-Disconnect"
DISCONNECTS = ("cancel", "wait")

_HINTS = ("X-Session-ID", "X-Conversation-Id")


async def read_options(
    request: AnyRequest, *, label: bytes, cache_key: str | None = None, is_background: bool = False
) -> Submit:
    """Raises `InvalidField`, naming the header."""
    _check_is_new(request)
    key = _idempotency_key(request)
    caller = caller_of(request.scope)
    how = submit_of(
        caller,
        asked_class=_request_class(request),
        hint=_hint(request, cache_key, caller),
        start_timeout_ms=_start_timeout_ms(request),
        is_background=is_background,
        idempotency_key=key,
        label=label,
        may_come_back=waits_on_disconnect(request),
    )
    return replace(how, fingerprint=await fingerprint(_route(request), await request.body())) if key else how


def submit_of(caller: Caller, *, asked_class: str | None = None, **how: Any) -> Submit:
    """How a request of this caller is treated; `how` are other fields of `Submit`."""
    weight = 1.0 if caller.account is None else caller.account.key.limits.weight
    return Submit(
        request_class=granted_class(asked_class, caller),
        tenant=caller.tenant,
        weight=weight,
        account=caller.account,
        **how,
    )


def _check_is_new(request: AnyRequest) -> None:
    """Who sends a body again to go on with its stream would pay for another one, from its beginning."""
    if _header(request, LAST_EVENT_ID):
        raise InvalidField(
            f"`{LAST_EVENT_ID}` is for GET /v1/requests/<id>/stream, <id> being what it has before the colon: "
            "go on there, or leave it out.",
            param=LAST_EVENT_ID,
        )


def _header(request: AnyRequest, name: str) -> str:
    return request.headers.get(name.lower(), "").strip()


def _hint(request: AnyRequest, cache_key: str | None, caller: Caller) -> str:
    """A digest of the first that is given, and of its tenant: it is only compared. The others are checked all the
    same."""
    given = [cache_key]
    for name in _HINTS:
        if len(value := _header(request, name)) > MAX_HINT_LENGTH:
            raise InvalidField(f"`{name}` has more than {MAX_HINT_LENGTH} characters.", param=name)
        given.append(value)
    cache_key = next(filter(None, given), None)
    if not cache_key:
        return ""
    salt = "" if caller.owner is None else f"{caller.owner}\n"
    return hashlib.sha256(f"{salt}{cache_key}".encode()).hexdigest()[:16]


def _start_timeout_ms(request: AnyRequest) -> int | None:
    name = "X-Request-Timeout"
    if name.lower() not in request.headers:
        return None
    text = _header(request, name)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_START_TIMEOUT_MS):
        raise InvalidField(f"`{name}` must be whole milliseconds from 1 to {MAX_START_TIMEOUT_MS}.", param=name)
    return int(text)


def granted_class(asked: str | None, caller: Caller) -> str:
    """The class that a key gives a request: its default, or what is asked for, if that is not above its highest; then
    the answer tells of it (`api/access/limit_headers.py`)."""
    account = caller.account
    if account is None:
        return asked or "normal"
    highest = account.key.limits.max_class
    wanted = asked or account.key.limits.default_class
    if CLASSES.index(wanted) >= CLASSES.index(highest):
        return wanted
    account.lowered_class = highest if asked else ""
    return highest


def _request_class(request: AnyRequest) -> str | None:
    name = "X-Request-Class"
    if name.lower() not in request.headers:
        return None
    text = _header(request, name)
    if text not in CLASSES:
        raise InvalidField(f"`{name}` must be one of {', '.join(CLASSES)}.", param=name)
    return text


def waits_on_disconnect(request: AnyRequest) -> bool:
    """Is a request whose connection breaks left to be followed again? Raises `InvalidField`."""
    if ON_DISCONNECT.lower() not in request.headers:
        return False
    text = _header(request, ON_DISCONNECT)
    if text not in DISCONNECTS:
        raise InvalidField(f"`{ON_DISCONNECT}` must be one of {', '.join(DISCONNECTS)}.", param=ON_DISCONNECT)
    return text == "wait"


def _idempotency_key(request: AnyRequest) -> str:
    name = "Idempotency-Key"
    if name.lower() not in request.headers:
        return ""
    key = _header(request, name)
    if not (1 <= len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        raise InvalidField(f"`{name}` must have 1 to {MAX_KEY_LENGTH} printable ASCII characters.", param=name)
    return key


def _route(request: AnyRequest) -> str:
    """One name for all paths of a route."""
    return min(request.route_handler.paths)
