"""One message on the inference socket: what it says, or what is wrong with it and whose it may be."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar.exceptions import ClientException

from api.native.calls import MAX_AT_ONCE
from api.native.errors import INVALID
from api.native.schema import Named, NotificationMessage, RequestMessage, SocketMessage
from api.validation import decode_body
from paddler.errors import InvalidField

__all__ = ["NotificationMessage", "RequestMessage", "WrongMessage", "receive_message"]

_decoder = msgspec.json.Decoder(SocketMessage)
_named_decoder = msgspec.json.Decoder(Named)


class WrongMessage(Exception):
    """`request_id` is empty when the message does not tell it."""

    def __init__(self, request_id: str, message: str) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.message = message


async def receive_message(event: Any) -> RequestMessage | NotificationMessage | None:
    """What a `websocket.receive` holds; None for an error of the client's, which concerns nobody. Raises
    `WrongMessage`.

    A long one is read in a thread: an image may have many megabytes."""
    text: str | None = event.get("text")
    if text is None:
        raise WrongMessage("", f"{INVALID}: binary messages are not read; send text.")
    if len(text) <= MAX_AT_ONCE:
        return _read(text)
    return await asyncio.to_thread(_read, text)


def _read(text: str) -> RequestMessage | NotificationMessage | None:
    data = text.encode("utf-8", "surrogatepass")
    try:
        message = decode_body(data, _decoder, {})
    except InvalidField as error:
        raise WrongMessage(_name_in(data), f"{INVALID}: {error.message}") from None
    except ClientException as error:
        raise WrongMessage(_name_in(data), f"{INVALID}: {error.detail}") from None
    if (message.Request is None) + (message.Notification is None) + (message.Error is None) != 2:
        raise WrongMessage(_name_in(data), f"{INVALID}: a message is one of Request, Notification and Error.")
    return message.Request or message.Notification


def _name_in(data: bytes) -> str:
    try:
        return _named_decoder.decode(data).Request.id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
