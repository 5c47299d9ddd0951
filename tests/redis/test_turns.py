"""Who may change its model: never so many that fewer than half of the slots stay ready, and never nobody for ever."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct
from queue_calls import LEASE, NOW, random_source

from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.store.client import Store
from paddler.store.keys import PoolKeys
from paddler.store.scripts import PoolScripts
from paddler.store.scripts_turns import FIRST_PAUSE_MS, TurnScripts
from paddler.store.turn_keys import losses_key, turns_key

pytestmark = pytest.mark.anyio

STATES = ("ready", "ready", "ready", "loading", "failed", "waiting", "leaving")


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


@pytest.fixture
def turns(any_store: Store) -> TurnScripts:
    return any_store.turns("default")


async def enter(pool: PoolScripts, agent: str, state: str = "ready", slots: int = 4, now: float = NOW) -> None:
    snapshot: dict[str, int | str | float | bytes] = {
        "state": state,
        "slots": slots if state in ("ready", "leaving") else 0,
        "desired_slots": slots,
    }
    await pool.register(agent, lease_ms=LEASE, model="", seen_s=1, snapshot=snapshot, now_ms=now)


async def leave(pool: PoolScripts, *agents: str, now: float = NOW) -> None:
    frames = {"dead_frame": DEAD_FRAME, "cancel_frame": CANCELLED_FRAME}
    for agent in agents:
        await pool.reap(agent, max_deaths=3, is_leaving=True, now_ms=now, **frames)


async def ask(
    turns: TurnScripts, agent: str, slots: int = 4, *, at_once: bool = False, holder: str = "", now: float = NOW
) -> bool:
    return await turns.turn(
        holder or f"of-{agent}", agent_id=agent, slots=slots, lease_ms=LEASE, at_once=at_once, now_ms=now
    )


async def test_half_of_the_slots_stay(pool: PoolScripts, turns: TurnScripts) -> None:
    agents = ["a", "b", "c", "d"]
    for agent in agents:
        await enter(pool, agent)
    assert [await ask(turns, agent) for agent in agents] == [True, True, False, False]
    assert await ask(turns, "a"), "a turn is kept, and prolonged"
    assert await turns.end_turn("of-a", now_ms=NOW)
    assert await ask(turns, "c"), "one that is ready again makes room for the next"
    assert not await ask(turns, "d")
    await leave(pool, *agents)


async def test_all_at_once_is_a_wish(pool: PoolScripts, turns: TurnScripts) -> None:
    for agent in "ab":
        await enter(pool, agent)
    assert [await ask(turns, agent, at_once=True) for agent in "ab"] == [True, True]
    await leave(pool, "a", "b")


async def test_one_alone_changes_all_the_same(pool: PoolScripts, turns: TurnScripts) -> None:
    """A pool of one, and the large one of a pool whose other agent has too few slots to be half: one at a time."""
    await enter(pool, "large", slots=8)
    assert await ask(turns, "large", 8)
    assert await turns.end_turn("of-large", now_ms=NOW)
    await enter(pool, "small", slots=2)
    assert await ask(turns, "small", 2)
    assert not await ask(turns, "large", 8)
    assert await turns.end_turn("of-small", now_ms=NOW)
    assert await ask(turns, "large", 8)
    assert not await ask(turns, "small", 2)
    await leave(pool, "large", "small")


async def test_one_that_loads_is_waited_for_and_one_that_cannot_is_not(pool: PoolScripts, turns: TurnScripts) -> None:
    await enter(pool, "a")
    await enter(pool, "b", "loading")
    assert not await ask(turns, "a"), "b will be half of the pool in a moment"
    for state in ("failed", "waiting"):
        await enter(pool, "b", state)
        assert await ask(turns, "a"), f"nobody knows for how long b is {state}"
        assert await turns.end_turn("of-a", now_ms=NOW)
    await leave(pool, "a", "b")


async def test_one_that_an_operator_has_drained_is_nobodys_half(pool: PoolScripts, turns: TurnScripts) -> None:
    for agent in "abc":
        await enter(pool, agent)
    await pool.redis.hset(pool.keys.agent("c"), "drain", "drain")
    assert await ask(turns, "a")
    assert not await ask(turns, "b"), "it is all that is left"
    await leave(pool, "a", "b", "c")


async def test_a_dead_holder_is_in_nobodys_way(pool: PoolScripts, turns: TurnScripts) -> None:
    await enter(pool, "a")
    await enter(pool, "b")
    assert await ask(turns, "a")
    assert not await ask(turns, "b")
    later = NOW + LEASE + 1
    await enter(pool, "b", now=later)
    assert await ask(turns, "b", now=later), "a is lost, and so is its turn"
    assert not await turns.end_turn("of-a", now_ms=later)
    await leave(pool, "a", "b", now=later)


async def test_a_version_that_cost_a_holder_waits_longer_and_longer(pool: PoolScripts, turns: TurnScripts) -> None:
    async def ask_for(agent: str, version: int, now: float, *, at_once: bool = False) -> bool:
        for one in "bcd":
            await enter(pool, one, now=now)
        told: dict[str, Any] = {"agent_id": agent, "slots": 4, "lease_ms": LEASE, "version": version}
        return await turns.turn(f"of-{agent}", at_once=at_once, now_ms=now, **told)

    assert await ask_for("a", 7, NOW)
    assert await turns.num_lost(7) == 0
    now = NOW + LEASE + 1  # `a` never comes back
    assert not await ask_for("b", 7, now)
    assert (await turns.num_lost(7), await turns.num_lost(8)) == (1, 0)
    assert not await ask_for("b", 7, now + FIRST_PAUSE_MS - 1)
    assert await ask_for("c", 8, now + 1), "another version need not be deadly"
    assert not await ask_for("b", 7, now + 2)
    now += FIRST_PAUSE_MS
    assert await ask_for("b", 7, now), "the pause is over"
    await leave(pool, "b", "c", "d", now=now)


async def test_pauses_double_up_to_a_bound_and_end_with_one_who_comes_through(
    pool: PoolScripts, turns: TurnScripts
) -> None:
    now, pauses = float(NOW), list[float]()
    told: dict[str, Any] = {"agent_id": "", "slots": 4, "lease_ms": LEASE, "version": 7}
    for number in range(7):
        assert await turns.turn(f"{number}", now_ms=now, **told)
        now += LEASE + 1
        assert not await turns.turn("next", now_ms=now, **told)
        held_until = float(await turns.redis.hget(losses_key(pool.keys), "until"))
        pauses.append(held_until - now)
        now = held_until
    assert pauses == [60_000, 120_000, 240_000, 480_000, 900_000, 900_000, 900_000]
    assert await turns.num_lost(7) == 7
    assert await turns.turn("next", now_ms=now, **told)
    assert await turns.end_turn("next", now_ms=now)
    assert await turns.num_lost(7) == 0
    assert await turns.turn("other", now_ms=now, **told)
    assert await turns.end_turn("other", now_ms=now)
    assert await turns.turn("one", now_ms=now, at_once=True, **told)
    assert await turns.turn("two", now_ms=now + LEASE + 1, at_once=True, **told), "all at once waits for nothing"


async def test_a_turn_ends_with_redis_own_clock(pool: PoolScripts, turns: TurnScripts) -> None:
    assert await turns.turn("one", agent_id="", slots=1, lease_ms=60_000)
    assert await turns.turn("two", agent_id="", slots=1, lease_ms=1_000, at_once=True)
    assert 50_000 < await turns.redis.pttl(turns.key) <= 60_000, "the longest lease counts"


class Agent(Struct):
    state: str
    slots: int
    expiry: float


class Turn(Struct):
    agent: str
    slots: int
    expiry: float


class Model:
    """The rule in plain words, over what the script reads."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.turns: dict[str, Turn] = {}

    def ask(self, holder: str, agent: str, slots: int, at_once: bool, now: float) -> bool:
        self.turns = {name: turn for name, turn in self.turns.items() if turn.expiry > now}
        others = {name: turn for name, turn in self.turns.items() if name != holder}
        away = {agent, *(turn.agent for turn in others.values())}
        live = [one for name, one in self.agents.items() if one.expiry > now and name not in away]
        ready = sum(one.slots for one in live if one.state == "ready")
        coming = sum(one.slots for one in live if one.state == "loading")
        whole = ready + coming + slots + sum(turn.slots for turn in others.values())
        may = holder in self.turns or at_once or ready >= whole / 2 or not (others or coming)
        if may:
            self.turns[holder] = Turn(agent, slots, now + LEASE)
        return may


async def test_any_sequence_of_calls_is_the_model(pool: PoolScripts, turns: TurnScripts, any_store: Store) -> None:
    """Agents come, load, serve, fail and die; holders ask, renew, end and forget. A rolling change never gives a turn
    that leaves less than half while another changes."""
    chance, model, now = random_source(), Model(), float(NOW)
    names = [f"agent-{number}" for number in range(6)]
    num_given = num_refused = 0
    for _ in range(600):
        name = chance.choice(names)
        match chance.randrange(8):
            case 0 | 1 | 2:
                state, slots = chance.choice(STATES), chance.randint(1, 8)
                await enter(pool, name, state, slots, now)
                model.agents[name] = Agent(state, slots, now + LEASE)
            case 3:
                await leave(pool, name, now=now)
                model.agents.pop(name, None)
            case 4:
                held = chance.choice([f"of-{one}" for one in names])
                was_held = held in model.turns
                assert await turns.end_turn(held, now_ms=now) == was_held
                model.turns.pop(held, None)
            case 5:
                now += chance.choice((1, 100, LEASE / 2, LEASE))
            case _:
                agent = chance.choice([name, ""])
                slots, at_once = chance.randint(0, 8), chance.random() < 0.1
                asked = model.ask(f"of-{name}", agent, slots, at_once, now)
                assert await ask(turns, agent, slots, at_once=at_once, holder=f"of-{name}", now=now) == asked
                num_given, num_refused = num_given + asked, num_refused + (not asked)
    assert min(num_given, num_refused) > 20
    await leave(pool, *names, now=now)
    assert await any_store.redis.pttl(turns_key(PoolKeys(any_store.prefix, "default"))) != -1
