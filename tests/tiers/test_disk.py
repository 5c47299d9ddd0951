"""Blocks on a real disk: kept over restarts, within the bound, and never a crash for a disk that has trouble."""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
from pathlib import Path

import pytest
from tier_calls import PACKER, Made, ManualClock, chain, files_of, holds, put, tokens_of

from workers.agent.saved_states import BLOCK
from workers.agent.tiers.contract import TierUnavailable
from workers.agent.tiers.disk import PIN_S, DiskTier
from workers.agent.tiers.packing import read_header

PLENTY = 1 << 30
ONE = len(chain(tokens_of(1, BLOCK))[0].packed())
"""Bytes of a block's file."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def open_tier(directory: Path, clock: ManualClock, max_bytes: int = PLENTY) -> DiskTier:
    tier = DiskTier(directory, max_bytes, clock, spare_bytes=0)
    tier.index()
    return tier


def read(tier: DiskTier, *blocks: Made) -> list[bytes]:
    return tier.read([block.name for block in blocks], deadline_s=10)


def singles(num: int) -> list[Made]:
    """Blocks of as many conversations."""
    return [chain(tokens_of(seed, BLOCK), scope=str(seed))[0] for seed in range(num)]


def bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in files_of(directory))


def check_books(tier: DiskTier, directory: Path) -> None:
    assert tier.num_bytes == bytes_in(directory) == tier._ledger.read()
    assert tier.num_blocks == len(files_of(directory))


def test_what_was_written_is_read_up_to_the_first_that_is_missing(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock)
    blocks = chain(tokens_of(1, 5 * BLOCK))
    for number in (0, 1, 3):
        put(tier, blocks[number])
    found = read(tier, *blocks)
    assert [read_header(one).own for one in found] == [block.own for block in blocks[:2]]
    assert (PACKER.unpack(blocks[1].name, found[1]).state == blocks[1].state).all()
    assert read(tier, *blocks[2:]) == []
    assert len(read(tier, blocks[3])) == 1
    check_books(tier, tmp_path)


def test_only_the_owner_can_look(tmp_path: Path, clock: ManualClock) -> None:
    directory = tmp_path / "made" / "here"
    put(open_tier(directory, clock), singles(1)[0], is_pinned=True)
    for path in directory.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, path


def test_a_block_is_written_once_and_a_tail_again(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock)
    full, tail = chain(tokens_of(1, BLOCK + 30))
    put(tier, full)
    before = tier._path(full.name).stat().st_ino
    clock.now += 5
    put(tier, full)
    assert tier._path(full.name).stat().st_ino == before
    assert tier._path(full.name).stat().st_mtime == clock.wall(), "it was of use"
    put(tier, tail)
    longer = chain(tokens_of(1, BLOCK + 60), size=3000)[1]
    assert longer.name == tail.name
    put(tier, longer)
    assert PACKER.unpack(tail.name, read(tier, tail)[0]).header.own == longer.own
    check_books(tier, tmp_path)


def test_the_bound_holds_and_what_is_used_stays(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock, 5 * ONE)
    blocks = singles(12)
    for block in blocks:
        put(tier, block)
        read(tier, blocks[0])
        assert bytes_in(tmp_path) <= 5 * ONE
        check_books(tier, tmp_path)
    assert holds(tier, blocks[0])
    assert [holds(tier, block) for block in blocks[-4:]] == [True] * 4


def test_a_conversation_goes_from_its_end(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock, 6 * ONE)
    blocks = chain(tokens_of(1, 6 * BLOCK))
    for block in blocks:
        put(tier, block)
    for other in singles(3):
        put(tier, other)
    kept = [holds(tier, block) for block in blocks]
    assert kept == sorted(kept, reverse=True)
    assert 1 <= sum(kept) < 6


def test_a_block_larger_than_all_is_not_kept(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock, ONE - 1)
    put(tier, singles(1)[0])
    assert files_of(tmp_path) == []


def test_what_is_pinned_never_makes_room(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock, 3 * ONE)
    pinned, *others = singles(9)
    put(tier, pinned)
    put(tier, pinned, is_pinned=True)
    for block in others:
        put(tier, block)
        assert holds(tier, pinned)
        check_books(tier, tmp_path)
    for block in others[:2]:
        put(tier, block, is_pinned=True)
    with pytest.raises(TierUnavailable, match="full of pinned blocks"):
        put(tier, others[5])
    assert all(holds(tier, block) for block in (pinned, *others[:2]))
    check_books(tier, tmp_path)


def test_a_pin_lasts_a_day_longer_than_its_agent(tmp_path: Path, clock: ManualClock) -> None:
    first, *others = singles(6)
    put(open_tier(tmp_path, clock, 2 * ONE), first, is_pinned=True)
    clock.now += PIN_S - 1
    tier = open_tier(tmp_path, clock, 2 * ONE)
    for block in others[:3]:
        put(tier, block)
    assert holds(tier, first)
    clock.now += 2
    tier = open_tier(tmp_path, clock, 2 * ONE)
    for block in others[3:]:
        put(tier, block)
    assert not holds(tier, first)


def test_a_pin_ends_a_day_after_its_last_use_while_its_agent_runs(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock, 3 * ONE)
    first, second, *others = singles(9)
    for block in (first, second):
        put(tier, block, is_pinned=True)
    clock.now += PIN_S - 1
    assert len(read(tier, second)) == 1
    for block in others[:3]:
        put(tier, block)
    assert holds(tier, first)
    clock.now += 2
    for block in others[3:]:
        put(tier, block)
    assert not holds(tier, first)
    assert holds(tier, second)
    check_books(tier, tmp_path)


def test_what_was_there_before_is_read_without_an_index_and_counted_with_one(
    tmp_path: Path, clock: ManualClock
) -> None:
    [block, other] = singles(2)
    put(open_tier(tmp_path, clock), block)
    tier = DiskTier(tmp_path, PLENTY, clock, spare_bytes=0)
    assert len(read(tier, block)) == 1
    assert tier.num_blocks == 0, "nobody has looked"
    before = tier._path(block.name).stat().st_ino
    put(tier, block)
    put(tier, other)
    assert tier._path(block.name).stat().st_ino == before
    check_books(tier, tmp_path)


def test_a_restart_finds_everything_and_what_was_used_last_stays(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock)
    blocks = singles(6)
    for block in blocks:
        clock.now += 10
        put(tier, block)
    clock.now += 10
    read(tier, blocks[1])
    tier.close()
    again = open_tier(tmp_path, clock)
    check_books(again, tmp_path)
    assert again.num_blocks == 6
    smaller = open_tier(tmp_path, clock, 2 * ONE)
    assert [holds(smaller, block) for block in blocks] == [False, True, False, False, False, True]
    check_books(smaller, tmp_path)


def test_a_start_removes_what_is_no_block(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock)
    blocks = singles(5)
    for block in blocks:
        put(tier, block)
    folder = tier._path(blocks[0].name).parent
    os.truncate(tier._path(blocks[0].name), ONE - 1)
    os.truncate(tier._path(blocks[1].name), 3)
    tier._path(blocks[2].name).write_bytes(b"something else" * 100)
    (folder / "notes.txt").write_text("of nobody")
    (folder / f"{blocks[0].name.hex()}.0a0a0a0a.new").write_bytes(b"half of a block")
    (folder / f"{'0' * 32}.kv").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("not ours")
    again = open_tier(tmp_path, clock)
    assert sorted(path.name for path in files_of(tmp_path / "kv-1")) == sorted(
        again._path(block.name).name for block in blocks[3:]
    )
    assert (tmp_path / "elsewhere").read_text() == "not ours"
    assert again.num_blocks == 2
    assert read(again, blocks[0]) == []
    put(again, blocks[0])
    assert holds(again, blocks[0])


def test_ten_thousand_blocks_are_found_at_once(tmp_path: Path, clock: ManualClock) -> None:
    """By their headers alone: the payloads are holes, which no file system reads quickly if somebody asks for them."""
    tier = open_tier(tmp_path, clock)
    packed = singles(1)[0].packed()
    header = bytearray(packed[:84])
    size = 4 << 20
    header[24:32] = (size - 100).to_bytes(8, "little")
    draw = random.Random(1)
    for _ in range(10_000):
        path = tier._path(draw.randbytes(16))
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.write(header)
            file.truncate(size)
    again = open_tier(tmp_path, clock, 1 << 40)
    assert again.num_blocks == 10_000
    assert again.num_bytes == 10_000 * size


def test_what_somebody_removes_is_a_miss_and_comes_again(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock)
    one, other = singles(2)
    put(tier, one)
    put(tier, other)
    tier._path(one.name).unlink()
    assert read(tier, one) == []
    put(tier, one)
    assert holds(tier, one)
    tier._path(one.name).unlink()
    put(tier, one)
    assert holds(tier, one), "nobody had read it meanwhile"
    shutil.rmtree(tmp_path / "kv-1")
    assert read(tier, one, other) == []
    put(tier, other)
    assert holds(tier, other)
    check_books(tier, tmp_path)


def test_a_refused_block_makes_room_for_the_right_one(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock)
    block = singles(1)[0]
    put(tier, block)
    tier._path(block.name).write_bytes(b"x" * ONE)
    tier.drop(block.name)
    tier.drop(block.name)
    assert read(tier, block) == []
    put(tier, block)
    assert holds(tier, block)
    check_books(tier, tmp_path)


def test_a_deadline_ends_a_reading_with_what_there_is(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock)
    blocks = chain(tokens_of(1, 3 * BLOCK))
    for block in blocks:
        put(tier, block)
    assert len(tier.read([block.name for block in blocks], deadline_s=0)) == 1
    assert len(tier.read([block.name for block in blocks], deadline_s=1)) == 3


def test_a_directory_that_cannot_be_is_a_tier_that_fails(tmp_path: Path, clock: ManualClock) -> None:
    place = tmp_path / "place"
    place.write_text("a file")
    tier = open_tier(place, clock)
    block = singles(1)[0]
    assert read(tier, block) == []
    with pytest.raises(TierUnavailable):
        put(tier, block)
    place.unlink()
    put(tier, block)
    assert holds(tier, block), "as soon as it can be"


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path, clock: ManualClock) -> None:
    free = [10 * ONE]
    tier = DiskTier(tmp_path, PLENTY, clock, spare_bytes=9 * ONE, free_bytes=lambda _folder: free[0])
    one, other = singles(2)
    put(tier, one)
    free[0] -= ONE
    with pytest.raises(TierUnavailable, match="bytes free"):
        put(tier, other)
    assert len(read(tier, one)) == 1
    check_books(tier, tmp_path)


def test_threads_of_one_agent_keep_the_books(tmp_path: Path, clock: ManualClock) -> None:
    tier = open_tier(tmp_path, clock, 20 * ONE)
    blocks = singles(30)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(60):
                block = draw.choice(blocks)
                action = draw.randrange(4)
                if action == 0:
                    for one in read(tier, block):
                        assert (PACKER.unpack(block.name, one).state == block.state).all()
                elif action == 1:
                    tier.drop(block.name)
                else:
                    put(tier, block)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert bytes_in(tmp_path) <= 20 * ONE
    check_books(tier, tmp_path)
