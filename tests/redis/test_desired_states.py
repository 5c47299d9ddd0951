"""Desired states in Redis: compared and set, followed, looked back at."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from msgspec import structs

from paddler.desired.document import encode_state
from paddler.desired.schema import BalancerDesiredState, ChatTemplate, InferenceParameters, Versioned
from paddler.desired.store import MAX_KEPT, DesiredStates
from paddler.errors import Conflict, StateNotFound, VersionConflict
from paddler.store.client import Store
from paddler.store.desired_keys import DesiredKeys
from paddler.store.keys import PoolKeys

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0


@pytest.fixture
def states(any_store: Store) -> DesiredStates:
    return DesiredStates(any_store)


def warm(temperature: float, *aliases: str) -> BalancerDesiredState:
    return BalancerDesiredState(inference_parameters=InferenceParameters(temperature=temperature), aliases=aliases)


async def write(states: DesiredStates, state: BalancerDesiredState, *, expected: int | None = None) -> int:
    return await states.write("default", state, expected=expected, author="a test")


@contextlib.asynccontextmanager
async def changes(states: DesiredStates) -> AsyncGenerator[AsyncIterator[Versioned]]:
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(states.changes("default")) as following:
        yield following


async def test_before_anybody_has_set_one(states: DesiredStates) -> None:
    assert await states.read("default") == Versioned(version=0)
    assert await states.version("default") == 0
    assert await states.history("default") == []


async def test_what_was_written_is_read(states: DesiredStates) -> None:
    assert await write(states, warm(0.5)) == 1
    assert await write(states, warm(0.6)) == 2
    found = await states.read("default")
    assert (found.version, found.state, found.author) == (2, warm(0.6), "a test")
    assert found.updated_ms > 1_600_000_000_000
    assert await states.version("default") == 2


async def test_the_default_state_counts_once_it_was_written(states: DesiredStates) -> None:
    assert await write(states, BalancerDesiredState()) == 1


async def test_a_state_that_is_as_it_was_is_no_change(states: DesiredStates) -> None:
    assert await write(states, warm(0.5)) == 1
    assert await write(states, warm(0.5)) == 1
    assert await write(states, warm(0.5), expected=1) == 1
    assert len(await states.history("default")) == 1


async def test_compare_and_set(states: DesiredStates) -> None:
    assert await write(states, warm(0.5), expected=0) == 1
    for expected in (0, 2):
        with pytest.raises(VersionConflict, match=f"version 1, not {expected}"):
            await write(states, warm(0.6), expected=expected)
    assert await write(states, warm(0.6), expected=1) == 2
    with pytest.raises(VersionConflict):
        await write(states, warm(0.6), expected=1)


async def test_of_two_at_once_one_wins(states: DesiredStates) -> None:
    await write(states, warm(0.1))
    outcomes = await asyncio.gather(
        *(write(states, warm(0.2 + number / 10), expected=1) for number in range(5)), return_exceptions=True
    )
    assert sorted(map(str, map(type, outcomes))) == sorted([str(int), *[str(VersionConflict)] * 4])
    assert await states.version("default") == 2


async def test_a_repeated_call_gives_the_same_answer(any_store: Store) -> None:
    """Its answer was lost, and meanwhile somebody else has written."""
    base = any_store.pool("default").keys.base

    async def call(token: str, expected: int | None, state: bytes) -> tuple[bool, int]:
        written = await any_store.desired_scripts.write_desired(
            base, state, expected=expected, author="", token=token, max_kept=9
        )
        return written.is_ok, written.version

    assert await call("one", 0, b"1") == (True, 1)
    assert await call("one", 0, b"1") == (True, 1)
    assert await call("two", None, b"2") == (True, 2)
    assert await call("one", 0, b"1") == (True, 1)
    assert await call("three", 1, b"3") == (False, 2)
    assert await call("two", None, b"2") == (True, 2)
    assert await any_store.redis.hget(DesiredKeys(base).desired(), "state") == b"2"


async def test_a_version_is_never_given_twice(states: DesiredStates, any_store: Store) -> None:
    """Also when somebody has deleted the state and left its history."""
    keys = DesiredKeys(any_store.pool("default").keys.base)
    await write(states, warm(0.1))
    await write(states, warm(0.2))
    await any_store.redis.delete(keys.desired())
    assert await states.version("default") == 0
    assert await write(states, warm(0.3), expected=0) == 3


async def test_history(states: DesiredStates) -> None:
    for number in range(3):
        await states.write("default", warm(number / 10), expected=number, author=f"author {number}")
    found = await states.history("default")
    assert [(one.version, one.author) for one in found] == [(3, "author 2"), (2, "author 1"), (1, "author 0")]
    assert found[0] == await states.read("default")
    assert (await states.at("default", 1)).state == warm(0.0)
    for version in (0, 4, -1, 2**70):
        with pytest.raises(StateNotFound):
            await states.at("default", version)


async def test_history_is_bounded(states: DesiredStates, any_store: Store) -> None:
    base = any_store.pool("default").keys.base
    for number in range(MAX_KEPT + 5):
        state = encode_state(warm(number))
        await any_store.desired_scripts.write_desired(
            base, state, expected=number, author="", token=str(number), max_kept=MAX_KEPT
        )
    found = await states.history("default")
    assert [one.version for one in found] == list(range(MAX_KEPT + 5, 5, -1))
    with pytest.raises(StateNotFound, match="the last 100"):
        await states.at("default", 5)


async def test_rolling_back_is_a_new_version(states: DesiredStates) -> None:
    await write(states, warm(0.1))
    await write(states, warm(0.2))
    assert await states.roll_back("default", 1, expected=2, author="") == 3
    assert (await states.read("default")).state == warm(0.1)
    with pytest.raises(VersionConflict):
        await states.roll_back("default", 2, expected=2, author="")
    with pytest.raises(StateNotFound):
        await states.roll_back("default", 9, expected=None, author="")


async def test_pools_have_states_of_their_own(states: DesiredStates, any_store: Store) -> None:
    await write(states, warm(0.1))
    await states.write("chat", warm(0.2), expected=0, author="")
    found = [await states.read(name) for name in ("default", "chat", "other")]
    assert [one.version for one in found] == [1, 1, 0]
    assert found[1].state == warm(0.2)
    assert "chat" in await any_store.pool_names(), "its requests can wait for its first agent"


async def test_an_alias_stands_for_one_pool(states: DesiredStates) -> None:
    await write(states, warm(0.1, "small", "fast"))
    with pytest.raises(Conflict, match="'fast' stands for the pool default") as told:
        await states.write("chat", warm(0.1, "big", "fast"), expected=None, author="")
    assert told.value.param == "aliases"
    await states.write("chat", warm(0.1, "big", "chat"), expected=None, author="")
    with pytest.raises(Conflict, match="'chat' is a pool"):
        await write(states, warm(0.1, "chat"))
    await write(states, warm(0.1, "small"))
    await states.write("chat", warm(0.1, "fast"), expected=None, author="")


async def test_aliases_of_a_newer_paddlers_state(states: DesiredStates, any_store: Store) -> None:
    key = DesiredKeys(any_store.pool("default").keys.base).desired()
    await any_store.redis.hset(key, mapping={"version": 7, "state": b'{"model":{"Torrent":"x"},"aliases":["a"]}'})
    assert await states.aliases(["default", "other"]) == {"default": ("a",), "other": ()}


async def test_following(states: DesiredStates) -> None:
    async with changes(states) as following:
        assert (await anext(following)).version == 0
        for number in range(1, 4):
            await write(states, warm(number))
            found = await anext(following)
            assert (found.version, found.state) == (number, warm(number))


async def test_who_comes_later_gets_the_state_as_it_is(states: DesiredStates) -> None:
    await write(states, warm(0.1))
    await write(states, warm(0.2))
    async with changes(states) as following:
        assert (await anext(following)).version == 2


async def test_a_follower_survives_a_lost_connection(states: DesiredStates, any_store: Store) -> None:
    async with changes(states) as following:
        assert (await anext(following)).version == 0
        await any_store.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await write(states, warm(0.1))
        assert (await anext(following)).version == 1


async def test_a_state_that_cannot_be_read_does_not_end_a_follower(states: DesiredStates, any_store: Store) -> None:
    key = DesiredKeys(any_store.pool("default").keys.base).desired()
    await any_store.redis.hset(key, mapping={"version": 7, "state": b'{"model":{"Torrent":"x"}}'})
    async with changes(states) as following:
        first = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0.05)
        assert not first.done()
        await any_store.redis.hset(key, "state", encode_state(warm(0.3)))
        assert (await first).state == warm(0.3)


async def test_a_large_state(states: DesiredStates) -> None:
    state = structs.replace(warm(0.1), chat_template_override=ChatTemplate("x" * 150_000))
    await write(states, state)
    assert (await states.read("default")).state == state


def test_every_key_carries_the_hash_tag_and_says_what_it_is() -> None:
    keys = DesiredKeys(PoolKeys("paddler", "chat").base)
    for name, method in inspect.getmembers(keys, inspect.ismethod):
        if name not in ("__init__", "permanent"):
            assert method().startswith("paddler:{chat}:"), name
            assert "·" in (method.__doc__ or ""), f"{name}: type, writer, reader, TTL"
    assert keys.permanent() <= PoolKeys("paddler", "chat").permanent()
