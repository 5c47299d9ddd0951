"""Parts of a body that are decoded once their type is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from api.validation import decode_body
from paddler.errors import InvalidField

T = TypeVar("T")


class _Typed(Struct):
    type: str | None = None


_typed_decoder = msgspec.json.Decoder(_Typed)


def type_of(where: str, data: bytes) -> str | None:
    """The `type` of an object. Raises `InvalidField`."""
    return decode_within(where, data, _typed_decoder, {}).type


def decode_within(where: str, data: bytes, decoder: msgspec.json.Decoder[T], not_yet: Mapping[str, str]) -> T:
    """As `decode_body`, for what the body calls `where`; the names in `not_yet` begin below that."""
    try:
        return decode_body(data, decoder, not_yet)
    except InvalidField as error:
        if error.param is None:
            raise InvalidField(f"`{where}` must be an object.", param=where) from None
        param = f"{where}.{error.param}"
        raise InvalidField(error.message.replace(f"`{error.param}`", f"`{param}`", 1), param=param) from None
