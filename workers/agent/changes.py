"""Waiting for a file to change: what was no good once is not tried again before that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddler.clock import Clock
from workers.agent.mark import Stat, stat_of

LOOK_S = 1.0
"""Between two looks at files that were no good."""


def look(files: Sequence[Path]) -> list[Stat | None]:
    return [stat_of(path) for path in files]


async def wait_for_change(
    files: Sequence[Path], before: list[Stat | None], clock: Clock, limit_s: float | None = None
) -> bool:
    """`before`: the files as they were when they were tried. For `limit_s` at most; False if nothing has changed."""
    began = clock.monotonic()
    while look(files) == before:
        if limit_s is not None and clock.monotonic() - began >= limit_s:
            return False
        await clock.sleep(LOOK_S)
    while (seen := look(files)) != before:  # a copy under way grows with every look
        before = seen
        await clock.sleep(LOOK_S)
    return True
