"""What starts and stops agents. `tests/autoscale/test_driver.py` holds every driver to this."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class Order(Struct, frozen=True, kw_only=True):
    """An agent to be started or stopped: its name, how many are wanted in all, and what was last seen of it."""

    name: str
    wanted: int
    agent_id: str = ""
    host: str = ""
    pid: int | None = None


class Launched(Struct, frozen=True):
    """Its process, where that is known."""

    pid: int | None = None
    host: str = ""


class Ended(Struct, frozen=True):
    """A process has ended that nobody has stopped. `status` is its exit code, or minus the number of the signal that
    killed it; None where that cannot be known."""

    name: str
    status: int | None


class Kinship(StrEnum):
    """Of an agent to a driver: `OURS`, it can stop it; `FOREIGN`, it cannot; `GONE`, it has ended without a word."""

    OURS = "ours"
    FOREIGN = "foreign"
    GONE = "gone"


class DriverFailed(Exception):
    """The message says what went wrong, in one line. `is_final`: doing the same again would end the same."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class Driver(Protocol):
    """`ends_with_us`: its agents end when the autoscaler is told to. `ended` has what it notices by itself."""

    ends_with_us: bool
    ended: asyncio.Queue[Ended]

    async def start(self, order: Order) -> Launched:
        """Make an agent of that name come into the pool; it may come much later than this returns. Called again for a
        name only after a stop, or by another autoscaler for what one was starting. Raises `DriverFailed`: there may be
        something to be stopped none the less."""
        ...

    async def stop(self, order: Order) -> None:
        """End an agent that has no requests; where there is none of that name, nothing is to be done. Raises
        `DriverFailed`."""
        ...

    def adopt(self, name: str, host: str, pid: int | None) -> Kinship:
        """Whose an agent with a name of ours is; one of ours is looked after from now on, whoever has started it."""
        ...

    def hurry(self) -> None:
        """Asked once more to end: agents that end with us are to do so now."""
        ...

    async def close(self) -> None:
        """Stop looking after agents; those that go on are found again."""
        ...
