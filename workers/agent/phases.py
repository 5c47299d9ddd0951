"""How far an agent is before it serves."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Phase(StrEnum):
    """In their order."""

    DOWNLOADING = "downloading"
    """LoRA adapters beside a model that is here."""
    CHECKING = "checking"
    """The file is read by a process that may die of it (`probe.py`)."""
    LOADING = "loading"
    WARMING_UP = "warming up"


Report = Callable[[Phase, float], None]
"""Is told the phase and 0..1, from any thread. An exception from it stops the loading."""


def ignore(_phase: Phase, _fraction: float) -> None:
    """Nobody wants to know."""
