"""From the bytes of a body to a typed request, or to an error that names the field and the way out.

Every structure of a request forbids unknown fields, so nothing a client asks for is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec
from litestar.exceptions import ClientException

from paddler.fields import invalid_field, unsupported

__all__ = ["decode_body", "is_deeper", "unsupported"]

T = TypeVar("T")


def decode_body(
    body: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T], not_yet: Mapping[str, str], at: str = ""
) -> T:
    """Decode and check a JSON body, or what stands at the path `at` of one.

    `not_yet` maps what the protocol has and Paddler does not, as a path with `[]` for every index, to the
    words for it. Raises `InvalidField` for JSON of the wrong shape, `ClientException` (400) for bytes that
    are no JSON.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error), decoder.type, not_yet, at) from None
    except msgspec.DecodeError as error:
        raise ClientException(f"The body is not valid JSON: {error}.") from None
    except UnicodeDecodeError as error:
        raise ClientException(f"The body is not valid UTF-8: {error.reason}.") from None
    except RecursionError:
        raise ClientException("The body is nested too deeply.") from None


def is_deeper(value: object, limit: int) -> bool:
    """Whether decoded JSON has more than `limit` lists and objects in each other."""
    level: list[object] = [value]
    for _ in range(limit):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += cast("dict[str, object]", one).values()
            elif isinstance(one, list):
                inner += cast("list[object]", one)
        level = inner
    return any(isinstance(one, dict | list) for one in level)
