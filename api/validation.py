"""From the bytes of a body to a typed request, or to an error that names the field and the way out.

Every structure of a request forbids unknown fields, so nothing a client asks for is dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar, cast

import msgspec
from litestar.exceptions import ClientException

from paddler.errors import InvalidField

T = TypeVar("T")

_WHERE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`\Z")
_INDEX = re.compile(r"\[\d+\]")


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
        raise _invalid_field(str(error), decoder.type, not_yet, at) from None
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


def unsupported(param: str, what: str | None = None) -> InvalidField:
    """The error for something the protocol has and Paddler does not have yet."""
    return InvalidField(f"{what or f'`{param}`'} is not supported yet; leave it out.", param=param)


def _invalid_field(text: str, type_: object, not_yet: Mapping[str, str], at: str) -> InvalidField:
    where = _WHERE.search(text)
    path = _join(at, where["path"]) if where else at
    what = text[: where.start()] if where else text

    if missing := _MISSING.match(what):
        param = _join(path, missing["name"])
        return InvalidField(f"`{param}` is required.", param=param)

    unknown = _UNKNOWN.match(what)
    param = _join(path, _shorten(unknown["name"], 60)) if unknown else path
    if words := not_yet.get(_INDEX.sub("[]", param)):
        return unsupported(param, words)
    if unknown:
        return InvalidField(f"Unknown field `{param}`{_hint(param, type_)}; leave it out.", param=param)
    what = _shorten(what[:1].lower() + what[1:], 200)
    if not path:
        return InvalidField(f"The body must be a JSON object: {what}.")
    return InvalidField(f"`{path}`: {what}.", param=path)


def _hint(param: str, type_: object) -> str:
    """A guess at a misspelt top-level field."""
    close = get_close_matches(param, getattr(type_, "__struct_encode_fields__", ()), n=1, cutoff=0.8)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
