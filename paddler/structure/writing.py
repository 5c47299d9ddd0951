"""Pieces of GBNF: literals, classes of characters, tries, and JSON's strings out of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

Ranges = tuple[tuple[int, int], ...]
"""Code points, first and last included; sorted and apart from each other."""

TOP = 0x10FFFF
MAX_DEPTH = 20
HEX = "[0-9a-fA-F]"
ESCAPED = rf'"\\" (["\\/bfnrt] | "u" ([0-9a-cA-CefEF] {HEX}{{3}} | [dD] [0-7] {HEX}{{2}}))'
"""An escape of JSON. None of half a surrogate pair: it would count twice, and alone be no character."""
PLAIN = r'[^"\\\x7F\x00-\x1F]'
"""A character of a JSON string as it is."""

_SHORT = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}


def literal(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def json_literal(value: object) -> str:
    return literal(json.dumps(value, ensure_ascii=False))


def one_of(parts: Iterable[str]) -> str:
    return "(" + " | ".join(parts) + ")"


def repeated(item: str, least: int, most: int | None) -> str:
    """`item` is one item of GBNF. Empty for none at all."""
    if most == 0:
        return ""
    if (least, most) == (1, 1):
        return item
    if most is None:
        return item + ("*" if least == 0 else "+" if least == 1 else f"{{{least},}}")
    return item + ("?" if (least, most) == (0, 1) else f"{{{least}}}" if most == least else f"{{{least},{most}}}")


def trie(words: Sequence[str], depth: int = 0) -> str:
    """Any of the words. Shared beginnings are written once, so that the matcher has one way to read them."""
    words = list(dict.fromkeys(words))
    if depth > MAX_DEPTH:
        return one_of(map(literal, words))
    shared = _shared(words)
    if len(words) == 1:
        return literal(shared)
    heads = _by_head([word[len(shared) :] for word in words])
    branches = one_of(trie([head + tail for tail in tails], depth + 1) for head, tails in heads.items())
    return f"{literal(shared)} {branches}" if shared else branches


def continued(words: Mapping[str, str], rule: Callable[[str], str]) -> str:
    """Any of the words, none of which begins with another, each followed by its item of GBNF. As in a `trie` there is
    one way to read them; `rule` gives a name to a part."""
    shared = _shared(list(words))
    if len(words) == 1:
        return f"{literal(shared)} {words[shared]}"
    heads: dict[str, dict[str, str]] = {}
    for word, item in words.items():
        heads.setdefault(word[len(shared)], {})[word[len(shared) :]] = item
    return f"{literal(shared)} {rule(one_of(continued(tails, rule) for tails in heads.values()))}"


def any_until(word: str, item: str, prefix: str, *, may_end: bool) -> dict[str, str]:
    """Rules for text up to `word` and that, then `item`; with `may_end` also for text without the word.

    Rule `<prefix>N` is where the text so far ends with the first N characters of the word and no more of it (the
    automaton of Knuth, Morris and Pratt), so that there is one way to read a text. `<prefix>0` is where it begins."""
    rules: dict[str, str] = {}
    for size in range(len(word)):
        onward = {char: num for char in dict.fromkeys(word) if (num := _num_matched(word, word[:size] + char))}
        parts = [f"[^{''.join(map(_escaped_in_class, onward))}] {prefix}0"]
        parts += [f"{literal(char)} {item if num == len(word) else f'{prefix}{num}'}" for char, num in onward.items()]
        rules[f"{prefix}{size}"] = " | ".join([*parts, '""'] if may_end else parts)
    return rules


def any_but_at_first(
    opening: Sequence[tuple[str, bool]], item: str, word: str, prefix: str, rest: str
) -> dict[str, str]:
    """Rules for text that, where it begins with the characters of `opening`, goes on with `item`, and otherwise is what
    `any_until` made of `word` under the prefix `rest`. Before a character with True there may be white space."""
    rules: dict[str, str] = {}
    for index, (char, is_spaced) in enumerate(opening):
        onward = item if index + 1 == len(opening) else f"{prefix}{index + 1}"
        parts = [f"{literal(char)} {onward}", '""', f"{literal(word[0])} {rest}1"]
        parts += [rf"[ \t\r\n] {prefix}{index}"] if is_spaced else []
        taken = "".join(map(_escaped_in_class, (char, word[0]))) + (r" \t\r\n" if is_spaced else "")
        rules[f"{prefix}{index}"] = " | ".join([*parts, f"[^{taken}] {rest}0"])
    return rules


def _num_matched(word: str, text: str) -> int:
    """How many first characters of the word the text ends with, at most."""
    return next(size for size in range(len(text), -1, -1) if word.startswith(text[len(text) - size :]))


def other_key(words: Sequence[str], rule: Callable[[str], str]) -> str:
    """The inside of a key that is none of the words. It has no escapes: one could spell a word. `rule` gives a name to
    a part; without one, long words would nest too deep."""
    heads = _by_head(words)
    ends = [] if heads.pop("", None) else ['""']
    ends += [f"{literal(head)} {rule(other_key(tails, rule))}" for head, tails in heads.items()]
    taken = "".join(map(_escaped_in_class, heads))
    return one_of([*ends, rf'[^"\\\x7F\x00-\x1F{taken}] {PLAIN}*'])


def _shared(words: Sequence[str]) -> str:
    """What all begin with."""
    first, last = min(words), max(words)
    return next((first[:index] for index, char in enumerate(first) if last[index : index + 1] != char), first)


def _by_head(words: Iterable[str]) -> dict[str, list[str]]:
    heads: dict[str, list[str]] = {}
    for word in words:
        heads.setdefault(word[:1], []).append(word[1:])
    return heads


def json_char(ranges: Ranges) -> str | None:
    """A character out of some, as a JSON string has it. None when there is no such character."""
    plain = list(intersection(ranges, complement(((0, 31), (34, 34), (92, 92), (127, 127), (0xD800, 0xDFFF)))))
    escapes = [letter for code, letter in _SHORT.items() if any(low <= code <= high for low, high in ranges)]
    parts: list[str] = []
    if plain:
        parts.append("[" + "".join(_range(low, high) for low, high in plain) + "]")
    parts += [literal("\\" + letter) for letter in escapes]
    return None if not parts else parts[0] if len(parts) == 1 else one_of(parts)


def complement(ranges: Ranges) -> Ranges:
    found: list[tuple[int, int]] = []
    begin = 0
    for low, high in union(ranges):
        if begin < low:
            found.append((begin, low - 1))
        begin = high + 1
    return tuple(found) if begin > TOP else (*found, (begin, TOP))


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    return union((max(a[0], b[0]), min(a[1], b[1])) for a in one for b in other if max(a[0], b[0]) <= min(a[1], b[1]))


def _range(low: int, high: int) -> str:
    begin = _escaped_in_class(chr(low))
    return begin if low == high else f"{begin}-{_escaped_in_class(chr(high))}"


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def _escaped_in_class(char: str) -> str:
    if char in "\\]-[":
        return "\\" + char
    return char if char.isprintable() and char != "^" else f"\\U{ord(char):08X}"
