"""Several agents on one directory, agents that are killed while they write, and what a system has against writing: in
processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tier_calls import ManualClock, chain, files_of, put, tokens_of

from paddler.testing.waiting import wait_until
from workers.agent.tiers.disk import DiskTier

ROOT = Path(__file__).parents[2]

WRITER = """
import random, sys
from pathlib import Path
from tier_calls import PACKER, chain, tokens_of, put, files_of
from paddler.clock import SystemClock
from workers.agent.tiers.disk import DiskTier

directory, seed, rounds, max_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
tier = DiskTier(directory, max_bytes, SystemClock(), spare_bytes=0)
blocks = [chain(tokens_of(number, 256), scope=str(number), size=20_000)[0] for number in range(40)]
draw = random.Random(seed)
print("ready", flush=True)
for _ in range(rounds):
    block = draw.choice(blocks)
    if draw.randrange(3):
        put(tier, block)
    for one in tier.read([block.name], deadline_s=5):
        assert (PACKER.unpack(block.name, one).state == block.state).all()
    sizes = 0
    for path in files_of(directory):
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            pass
    assert sizes <= max_bytes, (sizes, max_bytes)
print("done", flush=True)
"""
BLOCK_BYTES = 20_100


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}"}
    return subprocess.Popen(command, cwd=ROOT, env=paths, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=50)
    assert process.returncode == 0, said
    return said


def test_agents_share_a_directory_and_its_bound(tmp_path: Path) -> None:
    bound = 12 * BLOCK_BYTES
    processes = [start(WRITER, tmp_path, seed, 120, bound) for seed in range(3)]
    for process in processes:
        assert finish(process).endswith("done\n")
    tier = DiskTier(tmp_path, bound, ManualClock(), spare_bytes=0)
    tier.index()
    assert tier.num_bytes == sum(path.stat().st_size for path in files_of(tmp_path)) <= bound
    assert 1 <= tier.num_blocks <= 12


def test_what_one_has_written_the_others_read(tmp_path: Path) -> None:
    tiers = [DiskTier(tmp_path, 1 << 30, ManualClock(), spare_bytes=0) for _ in range(2)]
    block = chain(tokens_of(1, 256))[0]
    put(tiers[0], block)
    assert len(tiers[1].read([block.name], deadline_s=1)) == 1
    put(tiers[1], block)
    assert len(files_of(tmp_path)) == 1


def test_what_others_have_written_makes_room_too(tmp_path: Path) -> None:
    """Of an agent whose index has nothing of it, and who has written himself since."""
    blocks = [chain(tokens_of(seed, 256), scope=str(seed))[0] for seed in range(12)]
    size = len(blocks[0].packed())
    one, other = (DiskTier(tmp_path, 10 * size, ManualClock(), spare_bytes=0) for _ in range(2))
    for block in blocks[:9]:
        put(one, block)
    for block in blocks[9:]:
        put(other, block)
    assert all(other.read([block.name], deadline_s=1) for block in blocks[10:])
    assert other._ledger.read() == other.num_bytes == 10 * size


@pytest.mark.anyio
async def test_agents_that_are_killed_leave_nothing_that_counts(tmp_path: Path) -> None:
    bound = 12 * BLOCK_BYTES
    for seed in range(4):
        process = start(WRITER, tmp_path, seed, 1_000_000, bound)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def has_written(num: int = 2 * seed) -> bool:
            return len(files_of(tmp_path)) > num

        await wait_until(has_written)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert sum(path.stat().st_size for path in files_of(tmp_path)) <= bound
    tier = DiskTier(tmp_path, bound, ManualClock(), spare_bytes=0)
    tier.index()
    assert all(path.suffix == ".kv" for path in files_of(tmp_path))
    assert tier._ledger.read() == tier.num_bytes == sum(path.stat().st_size for path in files_of(tmp_path))


TROUBLE = """
import errno, resource, sys
from pathlib import Path
from tier_calls import chain, tokens_of, put, files_of
from paddler.clock import SystemClock
from workers.agent.tiers.contract import TierUnavailable
from workers.agent.tiers.disk import DiskTier

tier = DiskTier(Path(sys.argv[1]), 1 << 30, SystemClock(), spare_bytes=0, free_bytes=lambda _folder: 1 << 40)
small = chain(tokens_of(1, 256), size=2_000)[0]
large = chain(tokens_of(2, 256), size=300_000)[0]
put(tier, small)
%s
try:
    put(tier, large)
except TierUnavailable as error:
    print("unavailable:", error)
else:
    raise SystemExit("it was written")
assert len(tier.read([small.name], deadline_s=1)) == 1
assert [path.suffix for path in files_of(Path(sys.argv[1]))] == [".kv"]
assert tier._ledger.read() == tier.num_bytes
%s
put(tier, large)
assert len(tier.read([large.name], deadline_s=1)) == 1
print("and again")
"""


def test_a_file_that_may_not_grow_is_no_block(tmp_path: Path) -> None:
    """The system's own limit of a file's size; the write fails in its middle."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (%s, resource.RLIM_INFINITY))"
    said = finish(start(TROUBLE % (limit % "100_000", limit % "resource.RLIM_INFINITY"), tmp_path))
    assert "File too large" in said
    assert said.endswith("and again\n")


FULL_DISK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def check(code):
    if code: print("lacks", os.strerror(ctypes.get_errno())); raise SystemExit(0)
check(libc.unshare(0x00020000))
check(libc.mount(b"none", b"/", None, 0x44000, None))
check(libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=200k"))
"""


def test_a_full_disk_is_a_tier_that_fails(tmp_path: Path) -> None:
    """A real one, of 200 kB, which only root can make."""
    code = TROUBLE.replace("tier = DiskTier", FULL_DISK + "tier = DiskTier") % (
        "",
        "check(libc.mount(b'tmpfs', sys.argv[1].encode(), b'tmpfs', 0x20, b'size=2m'))",
    )
    said = finish(start(code, tmp_path))
    if said.startswith("lacks"):
        pytest.skip(said)
    assert "No space left on device" in said
    assert said.endswith("and again\n")


READ_ONLY = """
check(libc.mount(None, sys.argv[1].encode(), None, 0x21, None))
"""


def test_a_disk_that_became_read_only_is_read(tmp_path: Path) -> None:
    code = TROUBLE.replace("tier = DiskTier", FULL_DISK.replace("200k", "2m") + "tier = DiskTier") % (
        READ_ONLY,
        "check(libc.mount(None, sys.argv[1].encode(), None, 0x20, None))",
    )
    said = finish(start(code, tmp_path))
    if said.startswith("lacks"):
        pytest.skip(said)
    assert "Read-only file system" in said
    assert said.endswith("and again\n")
