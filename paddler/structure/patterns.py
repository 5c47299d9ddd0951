"""Regular expressions of JSON schemas (ECMA-262) as GBNF: what has no state of its own, anchored or not."""

from __future__ import annotations

import re
from typing import NoReturn

from paddler.structure.writing import ESCAPED, PLAIN, Ranges, complement, json_char, one_of, repeated, union

MAX_REPEAT = 2000
MAX_DEPTH = 20

_ANY = f"({PLAIN} | {ESCAPED})*"
_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_BLANK: Ranges = (
    *((9, 13), (32, 32), (160, 160), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F)),
    *((0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_LINE_ENDS: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))
_CLASSES: dict[str, Ranges] = {"d": _DIGIT, "w": _WORD, "s": _BLANK}
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
_TIMES = re.compile(r"\{([0-9]{1,6})(,)?([0-9]{1,6})?\}")


class PatternError(ValueError):
    """The pattern has something that cannot be enforced."""


def pattern_to_gbnf(pattern: str) -> str:
    """The inside of a JSON string that matches. Raises `PatternError`."""
    return _Pattern(pattern).whole()


class _Pattern:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> str:
        found = self._alternatives(is_outermost=True)
        if self._at < len(self._text):
            self._fail("`)` without `(`")
        return found

    def _alternatives(self, *, is_outermost: bool = False) -> str:
        found: list[str] = []
        while True:
            found.append(self._sequence(is_outermost))
            if not self._next_is("|"):
                return found[0] if len(found) == 1 else one_of(found)

    def _sequence(self, is_outermost: bool) -> str:
        """Anchors may only stand at the ends of an outermost alternative, or what is between them would matter."""
        is_begun = is_outermost and self._next_is("^")
        is_ended = False
        items: list[str] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if is_ended:
                self._fail("`$` before the end")
            if is_outermost and self._next_is("$"):
                is_ended = True
            else:
                items.append(self._repeated())
        if is_outermost:
            items = [*([] if is_begun else [_ANY]), *items, *([] if is_ended else [_ANY])]
        return " ".join(item for item in items if item) or '""'

    def _repeated(self) -> str:
        item = self._item()
        least, most = 1, 1
        if self._next_is("*"):
            least, most = 0, None
        elif self._next_is("+"):
            least, most = 1, None
        elif self._next_is("?"):
            least, most = 0, 1
        elif found := _TIMES.match(self._text, self._at):
            self._at = found.end()
            least = int(found[1])
            most = least if not found[2] else None if found[3] is None else int(found[3])
            if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
                self._fail(f"`{found[0]}`: at most {MAX_REPEAT}, and no less than the minimum")
        else:
            return item
        self._next_is("?")  # Lazy or not, the same texts match.
        if self._text[self._at : self._at + 1] in ("*", "+", "?") and self._at < len(self._text):
            self._fail("a repetition of a repetition")
        return repeated(item, least, most)

    def _item(self) -> str:
        char = self._text[self._at]
        self._at += 1
        match char:
            case "(":
                return self._group()
            case "[":
                return self._written(self._class())
            case ".":
                return self._written(complement(_LINE_ENDS))
            case "\\":
                return self._written(self._escape())
            case "^" | "$" | "*" | "+" | "?" | "{" | "}" | "]":
                self._fail(f"`{char}` here")
            case _:
                return self._written(((ord(char), ord(char)),))

    def _group(self) -> str:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} groups within each other")
        if self._next_is("?") and not self._next_is(":"):
            named = re.compile(r"<[A-Za-z_]\w*>").match(self._text, self._at)
            if named is None:
                self._fail("a look-around or a flag")
            self._at = named.end()
        inner = self._alternatives()
        if not self._next_is(")"):
            self._fail("`(` without `)`")
        self._depth -= 1
        return f"({inner})"

    def _class(self) -> Ranges:
        is_negated = self._next_is("^")
        found: list[tuple[int, int]] = []
        while not self._next_is("]"):
            low = self._class_item()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._class_item()
                if len(low) != 1 or len(high) != 1 or low[0][0] > high[0][1] or low[0][0] != low[0][1]:
                    self._fail("a range that is none")
                low = ((low[0][0], high[0][1]),)
            found += low
        ranges = union(found)
        return complement(ranges) if is_negated else ranges

    def _class_item(self) -> Ranges:
        if self._at >= len(self._text):
            self._fail("`[` without `]`")
        char = self._text[self._at]
        self._at += 1
        if char != "\\":
            return ((ord(char), ord(char)),)
        if self._next_is("b"):
            return ((8, 8),)
        return self._escape()

    def _escape(self) -> Ranges:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if (known := _CLASSES.get(char.lower())) and char:
            return known if char.islower() else complement(known)
        if char in ("x", "u") and (found := re.compile({"x": "[0-9a-fA-F]{2}", "u": "[0-9a-fA-F]{4}"}[char]).match(
            self._text, self._at
        )):  # fmt: skip
            self._at = found.end()
            return ((int(found[0], 16), int(found[0], 16)),)
        if char in _CONTROLS:
            return ((_CONTROLS[char], _CONTROLS[char]),)
        if not char or char.isalnum():
            self._fail(f"`\\{char}`")
        return ((ord(char), ord(char)),)

    def _written(self, ranges: Ranges) -> str:
        found = json_char(ranges)
        if found is None:
            self._fail("a class with no character that may be written")
        return found

    def _next_is(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _fail(self, what: str) -> NoReturn:
        raise PatternError(f"the pattern {self._text[:60]!r} has {what} at {self._at}")
