"""How many tokens of an output are of which kind: frames tell how many there are, and the text what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Kind = Literal["ContentToken", "ReasoningToken", "ToolCallToken", "UndeterminableToken"]
Piece = tuple[Kind, str]


class TokenCounts:
    """Exact as long as a frame is of one kind, which it is but for the place where one follows another: there its
    tokens are shared by the lengths of the texts. Marks without text of their own count with what they enclose."""

    def __init__(self, first: Kind) -> None:
        """`first` is the kind of an output that has no text at all."""
        self._last: Kind = first
        self._is_begun = False
        self._held = 0
        self.numbers: dict[Kind, int] = dict.fromkeys(
            ("ContentToken", "ReasoningToken", "ToolCallToken", "UndeterminableToken"), 0
        )

    def add(self, num_tokens: int, pieces: Sequence[Piece]) -> None:
        """Tokens of a frame, and the text that they released."""
        if not pieces:
            self._held += num_tokens
            return
        first = pieces[0][0]
        # A mark that opens is held back until what it opens has text; one that closes comes behind its text.
        belongs_to_first = not self._is_begun or first == "ToolCallToken"
        self.numbers[first if belongs_to_first else self._last] += self._held
        self._held = 0
        length = sum(len(text) for _, text in pieces)
        left = num_tokens
        for kind, text in pieces[:-1]:
            share = min(left, round(num_tokens * len(text) / length)) if length else 0
            self.numbers[kind] += share
            left -= share
        self._last = pieces[-1][0]
        self.numbers[self._last] += left
        self._is_begun = True

    def close(self, total: int) -> None:
        """Whatever is not counted yet, the end's token at least, is of the last kind; together they are `total`."""
        self._held = 0
        self.numbers[self._last] = max(0, self.numbers[self._last] + total - sum(self.numbers.values()))
