"""The keeper, with real threads: what was written is found, whatever fails on the way, and nobody waits."""

from __future__ import annotations

import gc
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from tier_calls import (
    PACKER,
    SIZE,
    MakeKeeper,
    ManualClock,
    MemoryTier,
    chain,
    check,
    fetch,
    state_of,
    stats_of,
    tokens_of,
    write_all,
)

from paddler.testing.waiting import wait_until
from workers.agent.saved_states import BLOCK
from workers.agent.tiers.contract import PUBLIC_SCOPE
from workers.agent.tiers.disk import DiskTier
from workers.agent.tiers.packing import Packer, parted

pytestmark = pytest.mark.anyio


async def test_what_one_engine_wrote_another_finds(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    tokens = tokens_of(1, 4 * BLOCK + 100)
    write_all(make_keeper(disk), tokens)
    keeper = make_keeper(disk)
    check(await fetch(keeper, tokens), tokens, 0, len(tokens))
    check(await fetch(keeper, tokens, 2 * BLOCK), tokens, 2 * BLOCK, len(tokens))
    assert stats_of(keeper, "disk").num_hits == 5 + 3
    assert stats_of(keeper, "disk").num_blocks == 5
    assert stats_of(keeper, "disk").num_bytes == disk.num_bytes > 0


async def test_only_what_begins_alike_is_found(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    keeper = make_keeper(disk)
    tokens = tokens_of(1, 3 * BLOCK + 50)
    write_all(keeper, tokens)
    for at, end in ((0, 0), (BLOCK + 3, BLOCK), (3 * BLOCK - 1, 2 * BLOCK), (3 * BLOCK + 10, 3 * BLOCK)):
        other = tokens.copy()
        other[at] += 1
        check(await fetch(keeper, other), other, 0, end)
    assert await fetch(keeper, tokens, scope="bob") == []
    assert stats_of(keeper, "disk").num_refused == 0, "another tenant's are not even asked for"


async def test_a_tail_leads_on_as_far_as_the_wanted_tokens_are_alike(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    keeper = make_keeper(disk)
    tokens = tokens_of(1, BLOCK + 100)
    write_all(keeper, tokens)
    longer = np.concatenate([tokens, tokens_of(2, 500)])
    check(await fetch(keeper, longer), longer, 0, BLOCK + 100)
    check(await fetch(keeper, tokens[:-1]), tokens, 0, BLOCK + 99, whole=BLOCK + 100)
    other = np.concatenate([tokens[: BLOCK + 60], tokens_of(3, 500)])
    check(await fetch(keeper, other), other, 0, BLOCK + 60, whole=BLOCK + 100)
    check(await fetch(keeper, other[: BLOCK + 10]), other, 0, BLOCK)
    # The newest takes the place of the one before.
    write_all(keeper, longer[: BLOCK + 140])
    check(await fetch(keeper, longer), longer, 0, BLOCK + 140)
    check(await fetch(keeper, tokens), tokens, 0, BLOCK + 100, whole=BLOCK + 140)


async def test_what_a_tier_lacks_the_next_one_has(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    tokens = tokens_of(1, 6 * BLOCK)
    blocks = chain(tokens, root=make_keeper().root("ann"))
    peer, shared = MemoryTier("peer"), MemoryTier("shared")
    for number, block in enumerate(blocks):
        if number in (0, 1, 4):
            disk.write(block.name, block.packed(), num_tokens=BLOCK)
        elif number != 5:
            peer.blocks[block.name] = block.packed()
        if number in (2, 5):
            shared.blocks[block.name] = block.packed()
    keeper = make_keeper(disk, peer, shared)
    loaded = await fetch(keeper, tokens, peers=("http://one",))
    check(loaded, tokens, 0, 6 * BLOCK)
    assert [one.tier for one in loaded] == ["disk", "disk", "peer", "peer", "disk", "shared"]
    assert peer.peers[0] == ("http://one",)
    num_asked = len(peer.asked)
    check(await fetch(keeper, tokens), tokens, 0, 3 * BLOCK)
    assert len(peer.asked) == num_asked, "nobody is named"


async def test_what_was_refused_is_looked_for_elsewhere_and_comes_again(
    make_keeper: MakeKeeper, disk: DiskTier
) -> None:
    tokens = tokens_of(1, 3 * BLOCK)
    shared = MemoryTier()
    blocks = write_all(make_keeper(disk, shared), tokens)
    path = disk._path(blocks[1].name)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    keeper = make_keeper(disk, shared)
    loaded = await fetch(keeper, tokens)
    check(loaded, tokens, 0, 3 * BLOCK)
    assert [one.tier for one in loaded][:2] == ["disk", "shared"]
    assert stats_of(keeper, "disk").num_refused == 1
    await wait_until(lambda: not path.exists())
    assert not keeper.has(blocks[1].own)
    assert keeper.has(blocks[0].own), "it was found where it would be written"
    write_all(keeper, tokens)
    assert path.exists()


async def test_no_damage_gives_a_wrong_state(make_keeper: MakeKeeper, clock: ManualClock, tmp_path: Path) -> None:
    """Of each kind, over all places of a file: what comes is right, and what does not come is counted."""
    tokens = tokens_of(1, 3 * BLOCK + 60)
    draw = random.Random(7)
    for number in range(60):
        disk = DiskTier(tmp_path / str(number), 1 << 30, clock, spare_bytes=0)
        blocks = write_all(make_keeper(disk), tokens)
        hurt, other = draw.sample(blocks, 2)
        path, data = disk._path(hurt.name), bytearray(disk._path(hurt.name).read_bytes())
        what = number % 5
        if what == 0:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif what == 1:
            del data[draw.randrange(len(data)) :]
        elif what == 2:
            data[:84] = disk._path(other.name).read_bytes()[:84]
        elif what == 3:
            data = bytearray(disk._path(other.name).read_bytes())
        else:
            data = bytearray(hurt.packed(Packer(b"of another key file")))
        path.write_bytes(data)
        keeper = make_keeper(disk)
        check(await fetch(keeper, tokens), tokens, 0, sum(len(one.tokens) for one in blocks[: blocks.index(hurt)]))
        assert stats_of(keeper, "disk").num_refused == 1, (number, what)


async def test_another_key_file_or_model_finds_nothing_and_refuses_nothing(
    make_keeper: MakeKeeper, disk: DiskTier
) -> None:
    tokens = tokens_of(1, 2 * BLOCK)
    write_all(make_keeper(disk), tokens)
    for keeper in (make_keeper(disk, packer=Packer(b"another key")), make_keeper(disk, fingerprint="of another")):
        assert await fetch(keeper, tokens) == []
        assert stats_of(keeper, "disk") == stats_of(keeper, "disk")
        assert (stats_of(keeper, "disk").num_misses, stats_of(keeper, "disk").num_refused) == (1, 0)


async def test_without_a_fingerprint_there_is_silence(make_keeper: MakeKeeper) -> None:
    tier = MemoryTier()
    keeper = make_keeper(tier, fingerprint=None)
    tokens = tokens_of(1, BLOCK)
    root = keeper.root("ann")
    assert not keeper.has(keeper.next(root, tokens))
    assert not keeper.write(root, tokens, state_of(1), is_tail=False)
    assert not keeper.is_worth(1000, 1000, 1.0)
    assert await fetch(keeper, tokens) == []
    assert tier.asked == tier.written == []


async def test_nothing_is_written_twice(make_keeper: MakeKeeper) -> None:
    tier = MemoryTier()
    keeper = make_keeper(tier)
    tokens = tokens_of(1, 2 * BLOCK + 20)
    blocks = write_all(keeper, tokens)
    assert all(keeper.has(block.own) for block in blocks)
    write_all(keeper, tokens)
    assert len(tier.written) == 3
    assert keeper.write(blocks[0].above, blocks[0].tokens, blocks[0].state, is_tail=False, is_pinned=True)
    assert keeper.write(blocks[0].above, blocks[0].tokens, blocks[0].state, is_tail=False, is_pinned=True)
    assert keeper.flush(10)
    assert tier.pinned == {blocks[0].name}, "pinned once more, and once"
    assert len(tier.written) == 4
    # What the store has forgotten is offered again.
    tier.blocks.clear()
    assert await fetch(keeper, tokens) == []
    assert not any(keeper.has(block.own) for block in blocks[:2]), "the whole chain, by one read"


async def test_what_an_operator_has_pinned_is_to_be_pinned_by_each_agent(
    make_keeper: MakeKeeper, disk: DiskTier
) -> None:
    tokens = tokens_of(1, BLOCK)
    [block] = write_all(make_keeper(disk), tokens, scope=PUBLIC_SCOPE)
    keeper = make_keeper(disk)
    assert len(await fetch(keeper, tokens, scope=PUBLIC_SCOPE)) == 1
    assert not keeper.has(block.own)


async def test_no_more_than_a_bound_is_on_its_way(make_keeper: MakeKeeper) -> None:
    tier = MemoryTier()
    tier.gate = threading.Event()
    keeper = make_keeper(tier, max_pending_bytes=2 * SIZE)
    blocks = chain(tokens_of(1, 4 * BLOCK), root=keeper.root("ann"))
    taken = [keeper.write(block.above, block.tokens, block.state, is_tail=False) for block in blocks]
    assert taken == [True, True, False, False]
    assert keeper.num_dropped == 2
    assert not keeper.flush(0.01)
    assert keeper.has(blocks[0].own)
    assert not keeper.has(blocks[2].own)
    tier.gate.set()
    assert keeper.flush(10)
    assert keeper.write(blocks[2].above, blocks[2].tokens, blocks[2].state, is_tail=False)
    assert keeper.flush(10)
    assert tier.written == [block.name for block in blocks[:3]]


async def test_a_tier_that_fails_is_left_out_for_a_while(make_keeper: MakeKeeper, clock: ManualClock) -> None:
    tier = MemoryTier()
    keeper = make_keeper(tier)
    tokens = tokens_of(1, BLOCK)
    [block] = chain(tokens, root=keeper.root("ann"))
    tier.is_down = True
    assert await fetch(keeper, tokens) == []
    assert not keeper.is_worth(BLOCK, SIZE, 1.0)
    assert await fetch(keeper, tokens) == []
    assert len(tier.asked) == 1
    assert keeper.write(block.above, block.tokens, block.state, is_tail=False)
    assert keeper.flush(10)
    assert not keeper.has(block.own), "nobody has taken it"
    assert not keeper.write(block.above, block.tokens, block.state, is_tail=False)
    assert stats_of(keeper, "shared").num_failures == 2
    clock.now += 1.5
    tier.is_down = False
    assert keeper.is_worth(BLOCK, SIZE, 1.0)
    assert keeper.write(block.above, block.tokens, block.state, is_tail=False)
    assert keeper.flush(10)
    check(await fetch(keeper, tokens), tokens, 0, BLOCK)


async def test_a_disk_that_is_full_is_still_read(make_keeper: MakeKeeper, clock: ManualClock, tmp_path: Path) -> None:
    free = [10**9]
    disk = DiskTier(tmp_path, 1 << 30, clock, spare_bytes=10**6, free_bytes=lambda _folder: free[0])
    keeper = make_keeper(disk)
    tokens = tokens_of(1, 2 * BLOCK)
    first, second = chain(tokens, root=keeper.root("ann"))
    assert keeper.write(first.above, first.tokens, first.state, is_tail=False)
    assert keeper.flush(10)
    free[0] = 0
    assert keeper.write(second.above, second.tokens, second.state, is_tail=False)
    assert keeper.flush(10)
    check(await fetch(keeper, tokens), tokens, 0, BLOCK)


async def test_the_deadline_ends_the_waiting(make_keeper: MakeKeeper, clock: ManualClock, disk: DiskTier) -> None:
    tokens = tokens_of(1, 2 * BLOCK)
    blocks = chain(tokens, root=make_keeper().root("ann"))
    disk.write(blocks[0].name, blocks[0].packed(), num_tokens=BLOCK)
    slow = MemoryTier()
    slow.gate = threading.Event()
    keeper = make_keeper(disk, slow)
    keeper.fetch("r", "ann", tokens, 0, peers=(), deadline_s=0.5)
    await wait_until(lambda: slow.asked)
    assert keeper.fetched("r") is None
    clock.now += 0.5
    loaded = keeper.fetched("r")
    assert loaded is not None
    check(loaded, tokens, 0, BLOCK)
    assert keeper.fetched("r") == [], "once"
    assert stats_of(keeper, "shared").num_failures == 1
    # Nobody waits for it a second time, not even after a while, until it has come back.
    clock.now += 100
    check(await fetch(keeper, tokens), tokens, 0, BLOCK)
    assert len(slow.asked) == 1
    slow.gate.set()
    await wait_until(lambda: keeper._seats[1].may_read)
    check(await fetch(keeper, tokens), tokens, 0, BLOCK)
    assert len(slow.asked) > 1


async def test_who_is_forgotten_is_read_no_further(make_keeper: MakeKeeper) -> None:
    tier = MemoryTier()
    tier.gate = threading.Event()
    keeper = make_keeper(tier)
    keeper.fetch("r", "ann", tokens_of(1, 3 * BLOCK), 0, peers=(), deadline_s=10)
    await wait_until(lambda: tier.asked)
    keeper.forget("r")
    keeper.forget("unknown")
    assert keeper.fetched("r") == []
    tier.gate.set()
    assert stats_of(keeper, "shared").num_failures == 0


async def test_hits_are_counted_for_their_tier(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    keeper = make_keeper(disk, MemoryTier())
    keeper.hit("disk", 300, 0.5)
    keeper.hit("disk", 200, 0.25)
    keeper.hit("shared", 1, 0.0)
    assert (stats_of(keeper, "disk").num_tokens, stats_of(keeper, "disk").saved_s) == (500, 0.75)
    assert stats_of(keeper, "shared").num_tokens == 1


async def test_a_peer_gets_what_the_disk_or_host_memory_has(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    tokens = tokens_of(1, 2 * BLOCK + 30)
    keeper = make_keeper(disk)
    blocks = write_all(keeper, tokens)
    disk.drop(blocks[1].name)
    disk.drop(blocks[2].name)
    names = [block.name for block in blocks]
    opened = [PACKER.unpack(name, one) for name, one in zip(names, keeper.packed(names), strict=True)]
    assert [one.header.own for one in opened] == [block.own for block in blocks]
    states = [parted(one)[1].state if one.header.is_tail else one.state for one in opened]
    assert all((state == block.state).all() for state, block in zip(states, blocks, strict=True))
    states = [block.state for block in blocks]
    del blocks, opened
    assert len(keeper.packed(names)) == 3
    del states[1]
    gc.collect()
    assert len(keeper.packed(names)) == 1, "nobody holds the second any more, nor the disk"
    assert keeper.lend(names[2]) is not None


async def test_without_a_tier_that_is_written_peers_are_served_all_the_same(make_keeper: MakeKeeper) -> None:
    peer = MemoryTier("peer")
    keeper = make_keeper(peer)
    [block] = blocks = write_all(keeper, tokens_of(1, BLOCK))
    assert keeper.has(block.own)
    name, own = block.name, block.own
    assert keeper.lend(name) is not None
    del block, blocks
    gc.collect()
    assert keeper.lend(name) is None
    assert not keeper.has(own), "computed again, it is offered again"
    assert peer.written == []


async def test_what_came_can_be_lent_while_it_is_held(make_keeper: MakeKeeper) -> None:
    tokens = tokens_of(1, BLOCK)
    peer = MemoryTier("peer")
    keeper = make_keeper(peer)
    [block] = chain(tokens, root=keeper.root("ann"))
    peer.blocks[block.name] = block.packed()
    loaded = await fetch(keeper, tokens, peers=("http://one",))
    lent = keeper.lend(block.name)
    assert lent is not None
    assert (PACKER.unpack(block.name, lent).state == loaded[0].state).all()


async def test_closing_ends_all_threads(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    before = set(threading.enumerate())
    shared = MemoryTier()
    keeper = make_keeper(disk, shared)
    write_all(keeper, tokens_of(1, BLOCK))
    keeper.close()
    await wait_until(lambda: set(threading.enumerate()) <= before)
    assert shared.is_closed


async def test_a_tier_with_a_fault_of_its_own_fails_like_any_other(make_keeper: MakeKeeper, disk: DiskTier) -> None:
    tokens = tokens_of(1, BLOCK)
    write_all(make_keeper(disk), tokens)
    broken = MemoryTier("shared")

    def breaks() -> None:
        raise RuntimeError("a mistake in a tier")

    broken.on_read = breaks
    keeper = make_keeper(broken, disk)
    check(await fetch(keeper, tokens), tokens, 0, BLOCK)
    assert stats_of(keeper, "shared").num_failures == 1


def test_a_block_is_whole_and_a_tail_is_not(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper(MemoryTier())
    for num, is_tail in ((BLOCK, True), (BLOCK - 1, False), (BLOCK + 1, False), (0, True)):
        with pytest.raises(ValueError, match="tail fewer"):
            keeper.write(keeper.root("ann"), tokens_of(1, num), state_of(1), is_tail=is_tail)
