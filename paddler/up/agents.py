"""How many agents `paddler up` has: a number, or a range between which an autoscaler starts and stops them."""

from __future__ import annotations

import re

import rich_click as click
from msgspec import Struct

MAX_AGENTS = 64
_RANGE = re.compile(r"(\d{1,4})(?:\.\.(\d{1,4}))?")


class AgentCount(Struct, frozen=True):
    """`most` None: always `least`."""

    least: int
    most: int | None = None

    @classmethod
    def parse(cls, text: str) -> AgentCount:
        """Read `2` or `0..2`. Raises `ValueError` saying what is wrong."""
        found = _RANGE.fullmatch(text) if text.isascii() else None
        if found is None:
            raise ValueError(f"{text!r} is neither a number of agents, such as 1, nor a range, such as 0..2")
        least, most = int(found[1]), None if found[2] is None else int(found[2])
        if max(least, most or 0) > MAX_AGENTS:
            raise ValueError(f"{text!r}: at most {MAX_AGENTS} agents")
        if most is not None and (most < least or most < 1):
            raise ValueError(f"{text!r}: the second number is the most that are started, at least 1 and the first")
        return cls(least, most)

    @property
    def fixed(self) -> int:
        """How many are started with everything else."""
        return self.least if self.most is None else 0

    def __str__(self) -> str:
        return str(self.least) if self.most is None else f"{self.least} to {self.most}"


class _AgentCountType(click.ParamType[AgentCount, str | int | AgentCount]):
    name = "number|least..most"

    def convert(
        self, value: str | int | AgentCount, param: click.Parameter | None, ctx: click.Context | None
    ) -> AgentCount:
        if isinstance(value, AgentCount):
            return value
        try:
            return AgentCount.parse(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


AGENT_COUNT = _AgentCountType()
