"""GBNF, llama.cpp's notation of grammars: read as llama.cpp reads it, and refused where it would not survive.

Its parser and its matcher trust a grammar: they recurse as deep as it nests, expand `x{2000}` in place, look for left
recursion in exponential time and miss some of it, and keep a stack for every way a text can be read. A client's grammar
must not be able to end an agent, so `check_gbnf` bounds all of that beforehand, in time in proportion to its length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NoReturn

from paddler.structure.expansion import check_expansion
from paddler.structure.rules import Chars, GrammarError, Group, Item, Ref, Repeat, Rules

ROOT = "root"
MAX_CHARS = 32_768
MAX_DEPTH = 50
"""Groups within groups."""
MAX_REPEAT = 2000
"""Beyond it llama.cpp refuses a minimum, and takes a maximum for none without a word."""


_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_ESCAPE = r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[tnr\\\"\[\]-])"
_LITERAL = re.compile(rf'"((?:{_ESCAPE}|[^\\"])*)"')
_CLASS = re.compile(rf"\[\^?+((?:{_ESCAPE}|[^\\\]])+)\]")
_ONE = re.compile(rf"{_ESCAPE}|.", re.DOTALL)
_WORDS = re.compile(rf"#[^\r\n]*|{_LITERAL.pattern}|{_CLASS.pattern}|{_NAME.pattern}")
"""Comments, literals, classes and names: what is not the first three and looks like a name is one."""
_TIMES = re.compile(r"\{[ \t]*([0-9]{1,9})[ \t]*(,)?[ \t]*([0-9]{1,9})?[ \t]*\}")


@lru_cache(maxsize=64)
def check_gbnf(grammar: str, root: str = ROOT, max_chars: int = MAX_CHARS) -> None:
    """Raises `GrammarError` for one that llama.cpp would refuse, or would not survive."""
    if len(grammar) > max_chars:
        raise GrammarError(f"it has {len(grammar)} characters, more than {max_chars}")
    rules = read_gbnf(grammar)
    if root not in rules:
        raise GrammarError(f"it has no rule `{root}`")
    check_expansion(rules)


def read_gbnf(grammar: str) -> Rules:
    """Raises `GrammarError` for what llama.cpp's parser would refuse, or not survive."""
    if "\0" in grammar:
        raise GrammarError("it has a NUL character")
    return _Reader(grammar).rules()


def rooted(grammar: str, root: str) -> str:
    """The grammar with its rule `root` under the name that every grammar of ours begins with. Raises `GrammarError` for
    what is no name of a rule; nothing else is looked at."""
    if root == ROOT:
        return grammar
    if not _NAME.fullmatch(root):
        raise GrammarError(f"{root[:60]!r} is no name of a rule")
    other = "other-root"
    while other in grammar:
        other += "x"
    renamed = _WORDS.sub(lambda found: other if found[0] == ROOT else found[0], grammar)
    return f"{renamed}\n{ROOT} ::= {root}\n"


class _Reader:
    """Reads a whole grammar, as `llama_grammar_parser` does."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._is_nested = 0

    def rules(self) -> Rules:
        """By name; of several with one name llama.cpp takes the last."""
        rules: Rules = {}
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            name = self._take(_NAME, "the name of a rule")[0]
            self._skip(_SPACE)
            self._expect("::=")
            self._skip(_SPACE_AND_LINES)
            rules[name] = self._alternatives()
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                self._fail("the end of the line")
            self._skip(_SPACE_AND_LINES)
        return rules

    def _alternatives(self) -> Group:
        found = [self._sequence()]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            found.append(self._sequence())
        return Group(tuple(found))

    def _sequence(self) -> tuple[Item, ...]:
        items: list[Item] = []
        while (char := self._text[self._at : self._at + 1]) and char not in "|)\r\n":
            if char in "*+?{":
                if not items:
                    self._fail("something to repeat")
                if isinstance(items[-1], Repeat):
                    raise GrammarError("it repeats a repetition: put the inner one in parentheses")
                least, most = self._times(char)
                items[-1] = Repeat(items[-1], least, most)
            else:
                items.append(self._item(char))
            self._skip(_SPACE_AND_LINES if self._is_nested else _SPACE)
        return tuple(items)

    def _item(self, char: str) -> Item:
        if char == '"':
            return Chars(sum(1 for _ in _ONE.finditer(self._take(_LITERAL, "a literal")[1])))
        if char == "[":
            return Chars(sum(1 for _ in _ONE.finditer(self._take(_CLASS, "a class of characters")[1])))
        if char == ".":
            self._at += 1
            return Chars(1)
        if char == "(":
            return self._group()
        if char in "<!":
            raise GrammarError("it names tokens (`<...>`), which mean something else to each model: name characters")
        return Ref(self._take(_NAME, "an item")[0])

    def _group(self) -> Group:
        self._is_nested += 1
        if self._is_nested > MAX_DEPTH:
            raise GrammarError(f"it has more than {MAX_DEPTH} groups within each other")
        self._at += 1
        self._skip(_SPACE_AND_LINES)
        group = self._alternatives()
        self._expect(")")
        self._is_nested -= 1
        return group

    def _times(self, char: str) -> tuple[int, int | None]:
        if char != "{":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        found = self._take(_TIMES, "a number of repetitions")
        least = int(found[1])
        most = least if not found[2] else None if found[3] is None else int(found[3])
        if not found[2] and found[3]:
            self._fail("a comma")
        if max(least, most or 0) > MAX_REPEAT:
            raise GrammarError(f"it repeats something {max(least, most or 0)} times; {MAX_REPEAT} is the most")
        if most is not None and most < least:
            raise GrammarError(f"it repeats something at least {least} and at most {most} times")
        return least, most

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        assert found is not None  # it matches the empty string
        self._at = found.end()

    def _take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            self._fail(what)
        self._at = found.end()
        return found

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            self._fail(f"`{text}`")
        self._at += len(text)

    def _fail(self, what: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        rest = self._text[self._at : self._at + 20]
        raise GrammarError(f"line {line}: expected {what}, found {rest!r}" if rest else f"line {line}: expected {what}")
