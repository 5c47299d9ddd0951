"""A keeper whose tiers are slow, or hang: nobody waits for them, and others are asked."""

from __future__ import annotations

import threading

import pytest
from tier_calls import SIZE, MakeKeeper, ManualClock, MemoryTier, chain, check, fetch, stats_of, tokens_of, write_all

from paddler.testing.waiting import wait_until
from workers.agent.saved_states import BLOCK
from workers.agent.tiers.disk import DiskTier
from workers.agent.tiers.keeper import NUM_READERS

pytestmark = pytest.mark.anyio


async def test_a_slow_store_does_not_hold_up_the_disk(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    shared = MemoryTier()
    shared.gate = threading.Event()
    keeper = make_keeper(disk, shared)
    blocks = chain(tokens_of(1, 3 * BLOCK), root=keeper.root("ann"))
    for block in blocks:
        assert keeper.write(block.above, block.tokens, block.state, is_tail=False)
    await wait_until(lambda: disk.num_blocks == 3)
    assert shared.written == []
    shared.gate.set()
    assert keeper.flush(10)
    assert len(shared.written) == 3


async def test_what_a_slow_store_has_no_room_for_the_disk_has(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    shared = MemoryTier()
    shared.gate = threading.Event()
    keeper = make_keeper(disk, shared, max_pending_bytes=2 * SIZE)
    blocks = chain(tokens_of(1, 6 * BLOCK), root=keeper.root("ann"))
    for number, block in enumerate(blocks, 1):
        assert keeper.write(block.above, block.tokens, block.state, is_tail=False)
        await wait_until(lambda number=number: disk.num_blocks == number)
    assert not keeper.flush(0.01)
    shared.gate.set()
    assert keeper.flush(10)
    assert shared.written == [block.name for block in blocks[:2]]
    assert keeper.num_dropped == 0


async def test_a_tier_that_came_back_late_is_known_to_be_slow(make_keeper: MakeKeeper, clock: ManualClock) -> None:
    tokens = tokens_of(1, 2 * BLOCK)
    slow = MemoryTier()
    keeper = make_keeper(slow)
    write_all(keeper, tokens)
    slow.gate = threading.Event()
    keeper.fetch("r", "ann", tokens, 0, peers=(), deadline_s=0.5)
    await wait_until(lambda: slow.asked)
    clock.now += 0.5
    assert keeper.fetched("r") == []
    clock.now += 0.4
    slow.gate.set()
    await wait_until(lambda: stats_of(keeper, "shared").bytes_per_s > 0)
    assert not keeper._seats[0].may_read, "left out for a second, although it came"
    clock.now += 1
    await wait_until(lambda: keeper._seats[0].may_read)
    assert not keeper.is_worth(2 * BLOCK, 2 * SIZE, 0.5 / (2 * BLOCK)), "it takes 0.9 s"
    assert keeper.is_worth(2 * BLOCK, 2 * SIZE, 1.5 / (2 * BLOCK))


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_a_disk_that_hangs_holds_up_no_other_tier(
    make_keeper: MakeKeeper, clock: ManualClock, is_forgotten: bool
) -> None:
    """Although it has all threads that read, for requests that wait still or were cancelled."""
    tokens = tokens_of(1, 2 * BLOCK)
    hung, shared = MemoryTier("disk"), MemoryTier("shared")
    write_all(make_keeper(shared), tokens)
    num_before = len(readers())
    keeper = make_keeper(hung, shared)
    hung.gate = threading.Event()
    for number in range(NUM_READERS):
        keeper.fetch(str(number), "ann", tokens, 0, peers=(), deadline_s=0.5)
    await wait_until(lambda: len(hung.asked) == NUM_READERS)
    if is_forgotten:
        for number in range(NUM_READERS):
            keeper.forget(str(number))
    clock.now += 0.5
    assert is_forgotten or keeper.fetched("0") == []
    assert keeper.is_worth(2 * BLOCK, 2 * SIZE, 1.0), "from the other"
    for number in range(1, NUM_READERS):
        assert keeper.fetched(str(number)) == []
    check(await fetch(keeper, tokens), tokens, 0, 2 * BLOCK)
    assert len(hung.asked) == NUM_READERS
    hung.gate.set()
    await wait_until(lambda: len(readers()) == num_before + NUM_READERS)
    clock.now += 1
    check(await fetch(keeper, tokens), tokens, 0, 2 * BLOCK)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kv-read"]


async def test_what_reading_costs_is_measured_and_compared(make_keeper: MakeKeeper, clock: ManualClock) -> None:
    tier = MemoryTier()
    keeper = make_keeper(tier)
    tokens = tokens_of(1, 4 * BLOCK)
    write_all(keeper, tokens)
    assert keeper.is_worth(BLOCK, 10**9, 1e-6), "nobody knows yet"

    def takes_a_second() -> None:
        clock.now += 1

    tier.on_read = takes_a_second
    assert len(await fetch(keeper, tokens)) == 4
    assert stats_of(keeper, "shared").bytes_per_s == pytest.approx(4 * SIZE)
    assert keeper.is_worth(BLOCK, 4 * SIZE, 1.1 / BLOCK)
    assert not keeper.is_worth(BLOCK, 4 * SIZE, 0.9 / BLOCK)
    clock.now += 31
    assert keeper.is_worth(BLOCK, 4 * SIZE, 0.9 / BLOCK), "it may be faster now"


async def test_the_cheapest_is_asked_first(make_keeper: MakeKeeper, clock: ManualClock) -> None:
    tokens = tokens_of(1, 2 * BLOCK)
    slow, quick = MemoryTier("disk"), MemoryTier("shared")

    def takes_a_second() -> None:
        clock.now += 1

    slow.on_read = takes_a_second
    keeper = make_keeper(slow, quick)
    write_all(keeper, tokens)
    assert [one.tier for one in await fetch(keeper, tokens)] == ["disk", "disk"]
    slow_blocks, slow.blocks = slow.blocks, {}
    assert [one.tier for one in await fetch(keeper, tokens)] == ["shared", "shared"]
    slow.blocks = slow_blocks
    assert [one.tier for one in await fetch(keeper, tokens)] == ["shared", "shared"]


async def test_only_tiers_that_are_worth_it_are_asked(make_keeper: MakeKeeper, clock: ManualClock) -> None:
    tokens = tokens_of(1, 2 * BLOCK)
    slow, peer = MemoryTier("disk"), MemoryTier("peer")

    def takes_a_second() -> None:
        clock.now += 1

    slow.on_read = takes_a_second
    keeper = make_keeper(slow, peer)
    write_all(keeper, tokens)
    assert len(await fetch(keeper, tokens)) == 2
    num_asked = len(slow.asked)
    token_s = 0.5 / (2 * BLOCK)
    assert keeper.is_worth(2 * BLOCK, 2 * SIZE, token_s), "an agent may be faster"
    assert not keeper.is_worth(2 * BLOCK, 2 * SIZE, token_s, has_peers=False), "and none is named"
    assert await fetch(keeper, tokens, peers=("http://one",)) == []
    assert (len(slow.asked), len(peer.asked) > 0) == (num_asked, True)
