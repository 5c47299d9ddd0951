"""A grammar as it was read: rules of alternatives, each a sequence of items."""

from __future__ import annotations

from msgspec import Struct


class GrammarError(ValueError):
    """The grammar cannot be used; the message says why."""


class Chars(Struct, frozen=True):
    """A literal, a class of characters or `.`: `size` elements of llama.cpp's, none for an empty literal."""

    size: int


class Ref(Struct, frozen=True):
    name: str


class Group(Struct, frozen=True):
    alternatives: tuple[tuple[Item, ...], ...]


class Repeat(Struct, frozen=True):
    """`most` None means without end."""

    item: Item
    least: int
    most: int | None


Item = Chars | Ref | Group | Repeat
Rules = dict[str, Group]
