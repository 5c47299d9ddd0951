"""What downloads leave behind when nobody goes on with them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from paddler.clock import SystemClock
from paddler.logs import get_logger
from workers.agent.fetch.cache import ModelCache, locked
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.notes import discard

log = get_logger(__name__)

OLD_S = 7 * 86_400
"""A partial file that has not grown for so long is removed."""


def remove_old_partials(cache: ModelCache, *, but_in: Path) -> list[Path]:
    """Those removed, `but_in` a folder that the caller has locked. Never one that is being worked on; what cannot be
    removed stays."""
    removed: list[Path] = []
    oldest = SystemClock().wall() - OLD_S
    for partial in sorted(cache.downloads.glob("*/*.partial")):
        with contextlib.suppress(OSError, FetchError):
            if partial.parent == but_in or partial.stat().st_mtime >= oldest:
                continue
            with locked(partial.parent / "lock", "CacheCannotAcquireLock"):
                if partial.stat().st_mtime < oldest:
                    discard(partial)
                    removed.append(partial)
                    log.info("removed a download that nobody went on with", path=str(partial))
    return removed
