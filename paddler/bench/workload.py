"""What is asked: conversations drawn from a seed, each a function of its number alone."""

from __future__ import annotations

import random
from typing import Protocol

from msgspec import Struct

from paddler.bench.texts import Texts


class Span(Struct, frozen=True):
    """Whole numbers, each equally likely, both ends included."""

    low: int
    high: int

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


class Turn(Struct, frozen=True):
    """`is_left`: its client goes away after `--cancel-after`."""

    text: str
    output_tokens: int
    is_left: bool = False


class Conversation(Struct, frozen=True):
    """Each turn is sent with all before it and what was answered to them."""

    number: int
    turns: tuple[Turn, ...]
    system: str | None = None


class Workload(Protocol):
    mean_turns: float

    def conversation(self, number: int) -> Conversation | None:
        """None past the end of a workload that has one."""
        ...


class Shape(Struct, frozen=True, kw_only=True):
    """Sizes in tokens. `num_systems` system prompts are shared by all conversations; 0 tokens: there is none."""

    prompt_tokens: Span
    output_tokens: Span
    turns: Span
    system_tokens: int = 0
    num_systems: int = 1
    cancel_rate: float = 0.0


class Drawn:
    """Conversations of a shape, without an end."""

    def __init__(self, shape: Shape, texts: Texts) -> None:
        self._shape = shape
        self._texts = texts
        self.mean_turns = shape.turns.mean

    def conversation(self, number: int) -> Conversation:
        shape = self._shape
        rng = self._texts.rng(f"conversation/{number}")
        system: str | None = None
        if shape.system_tokens:
            system = self._texts.shared(f"system/{rng.randrange(shape.num_systems)}", shape.system_tokens)
        turns = tuple(self._turn(rng) for _ in range(shape.turns.draw(rng)))
        return Conversation(number, turns, system)

    def _turn(self, rng: random.Random) -> Turn:
        shape = self._shape
        text = self._texts.drawn(rng, shape.prompt_tokens.draw(rng))
        return Turn(text, shape.output_tokens.draw(rng), rng.random() < shape.cancel_rate)
