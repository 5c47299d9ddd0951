"""The query of a list: checked, and nothing in it passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.body import AnyRequest
from paddler.errors import InvalidField


def read_query(request: AnyRequest, names: Sequence[str]) -> dict[str, str]:
    """The last of each name. Raises `InvalidField` for a name that the route does not have."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            raise InvalidField(f"Unknown query parameter `{name[:64]}`; leave it out.", param=name[:64])
        found[name] = str(value)
    return found


def read_limit(query: Mapping[str, str], default: int, most: int) -> int:
    text = query.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= most):
        raise InvalidField(f"`limit` must be from 1 to {most}.", param="limit")
    return int(text)


def read_choice(query: Mapping[str, str], name: str, choices: Sequence[str]) -> str | None:
    value = query.get(name)
    if value is not None and value not in choices:
        raise InvalidField(f"`{name}` must be one of {', '.join(choices)}.", param=name)
    return value
