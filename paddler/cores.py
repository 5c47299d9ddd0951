"""How many threads are worth starting on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path


def num_usable_cores(cpus: set[int] | None = None, root: Path = Path("/sys")) -> int:
    """Physical cores this process may use: affinity, less hyper-threads (two on one core are slower than one for
    matrix work), bounded by a container's CPU quota. At least 1."""
    allowed = os.sched_getaffinity(0) if cpus is None else cpus
    cores = {_read(root / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota(root)))


def _quota(root: Path) -> int:
    quota, _, period = _read(root / "fs/cgroup/cpu.max").partition(" ")
    return math.ceil(int(quota) / int(period)) if quota.isdigit() and period.isdigit() else 1 << 16


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
