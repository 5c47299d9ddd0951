"""What is asked of whoever can read a model: the agent's package, by its entry point, since `paddler` imports none."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from msgspec import Struct

from paddler.doctor.finding import Finding, warn

ENTRY_POINTS = "paddler.model_checks"


class ModelQuestion(Struct, frozen=True, kw_only=True):
    """`available` is bytes of memory, None if unknown."""

    path: Path
    slots: int
    context_size: int
    available: int | None = None


ModelCheck = Callable[[ModelQuestion], list[Finding]]


def check_model(question: ModelQuestion) -> list[Finding]:
    found = list(metadata.entry_points(group=ENTRY_POINTS))
    if not found:
        return [warn("model", "nothing here can read a model", "install the agent's package")]
    checks: list[ModelCheck] = [one.load() for one in found]
    return [finding for check in checks for finding in check(question)]
