"""How many threads: cores, not hyper-threads, within the container's quota."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddler.cores import num_usable_cores


def machine(root: Path, siblings: dict[int, str], quota: str | None = None) -> Path:
    for cpu, value in siblings.items():
        topology = root / f"devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{value}\n")
    if quota is not None:
        (root / "fs/cgroup").mkdir(parents=True)
        (root / "fs/cgroup/cpu.max").write_text(f"{quota}\n")
    return root


HYPER = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}


@pytest.mark.parametrize(
    ("cpus", "siblings", "quota", "expected"),
    [
        ({0, 1}, {0: "0", 1: "1"}, None, 2),
        ({0, 1, 2, 3}, HYPER, None, 2),
        ({0, 2}, HYPER, None, 1),
        ({0, 1, 2, 3}, {n: str(n) for n in range(4)}, "150000 100000", 2),
        ({0, 1, 2, 3}, {n: str(n) for n in range(4)}, "max 100000", 4),
        ({0}, {0: "0"}, "10000 100000", 1),
        ({0, 1, 2}, {}, None, 3),
    ],
)
def test_usable_cores(
    tmp_path: Path, cpus: set[int], siblings: dict[int, str], quota: str | None, expected: int
) -> None:
    assert num_usable_cores(cpus, machine(tmp_path, siblings, quota)) == expected


def test_this_machine_has_at_least_one() -> None:
    assert num_usable_cores() >= 1
