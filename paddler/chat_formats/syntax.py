"""What stands around the arguments of a call, as regular expressions that also know their own beginnings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from paddler.chat_formats.families import CALLS

_WS = r"[ \t\r\n]*"
_NAME = r"(?P<name>[\w.-]{1,64})"


class Part(Struct, frozen=True):
    """`whole` is it, `beginning` (a full match) what may become it. The group `name` is a tool's; `follows`, `,` if
    another call does."""

    whole: re.Pattern[str]
    beginning: re.Pattern[str]


def part(*atoms: str) -> Part:
    """Out of regular expressions for one character each, or for what may be of any length."""
    beginning = ""
    for atom in reversed(atoms):
        atom = re.sub(r"\?P<\w+>", "?:", atom)
        beginning = f"(?:{atom}{beginning})?" if not atom.startswith("(?=") else ""
    return Part(re.compile("".join(atoms), re.ASCII), re.compile(beginning, re.ASCII))


class Syntax(Struct, frozen=True):
    """`header` comes between the trigger and the arguments, `closing` (none: nothing) behind them, `next_header` behind
    a closing that says that another call follows. Without a trigger a text may begin with `opening`, and `name` is the
    rest of the header."""

    header: Part
    closing: Part | None
    next_header: Part
    opening: Part | None
    name: Part


def _spelt(text: str) -> list[str]:
    return [re.escape(char) for char in text]


def _object(key: str, before: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The atoms of `{"name": "`, and of what comes then up to the arguments."""
    opening = [*before, _WS, r"\{", _WS, *_spelt('"name"'), _WS, ":", _WS, '"']
    return opening, [_NAME, '"', _WS, ",", _WS, *_spelt(f'"{key}"'), _WS, ":", _WS, r"(?=\{)"]


def _of_objects(key: str, closing: Sequence[str], before: Sequence[str] = (), *, is_bare: bool = False) -> Syntax:
    opening, name = _object(key, before)
    again, _ = _object(key)
    header = part(*opening, *name)
    return Syntax(header, part(*closing), part(*again, *name), part(*opening) if is_bare else None, part(*name))


def _of_names() -> Syntax:
    args = [*_spelt("[ARGS]"), _WS, r"(?=\{)"]
    with_id = part(_NAME, *_spelt("[CALL_ID]"), r"[a-zA-Z0-9]*", *args)
    without = part(_NAME, *args)
    header = Part(
        re.compile(f"{_NAME}(?:\\[CALL_ID\\][a-zA-Z0-9]*)?" + "".join(args), re.ASCII),
        re.compile(f"(?:{with_id.beginning.pattern})|(?:{without.beginning.pattern})", re.ASCII),
    )
    return Syntax(header, None, header, None, header)


SYNTAXES = {
    "hermes": _of_objects("arguments", [_WS, r"\}", _WS, *_spelt("</tool_call>")]),
    "llama3": _of_objects("parameters", [_WS, r"\}"], is_bare=True),
    "mistral": _of_objects("arguments", [_WS, r"\}", _WS, r"(?P<follows>[,\]])"], [_WS, r"\["]),
    "mistral-args": _of_names(),
}


def has_call(calls: str, text: str, name: str) -> bool:
    """Whether somewhere in a text the tool is called in this format, at least up to its arguments."""
    syntax = SYNTAXES[calls]
    before = "" if syntax.opening is not None else re.escape(CALLS[calls].trigger)
    found = re.search(before + syntax.header.whole.pattern, text, re.ASCII)
    return found is not None and found["name"] == name


class ObjectScanner:
    """Finds the end of a JSON object in pieces of text."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_string = False
        self._is_escaped = False

    def scan(self, text: str) -> tuple[int, bool]:
        """How many characters belong to it, and whether it ends with them."""
        for index, char in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_string:
                self._is_escaped = char == "\\"
                self._is_string = char != '"'
            elif char == '"':
                self._is_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return index + 1, True
        return len(text), False


def longest_beginning(text: str, word: str) -> int:
    """Length of the longest end of `text` that the word begins with, and is not."""
    return next(size for size in range(min(len(word) - 1, len(text)), -1, -1) if text.endswith(word[:size]))
