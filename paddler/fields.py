"""From what msgspec says of a document to an error that names the field and the way out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from paddler.errors import InvalidField

_WHERE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`\Z")
_INDEX = re.compile(r"\[\d+\]")


def invalid_field(text: str, type_: object, not_yet: Mapping[str, str], at: str) -> InvalidField:
    """The error for what a `msgspec.ValidationError` says (`text`) of a document that was to be of `type_`.

    `at` is the path of where it stands. `not_yet` maps what the protocol has and Paddler does not, as a path with `[]`
    for every index, to the words for it.
    """
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


def unsupported(param: str, what: str | None = None) -> InvalidField:
    """The error for something the protocol has and Paddler does not have yet."""
    return InvalidField(f"{what or f'`{param}`'} is not supported yet; leave it out.", param=param)
