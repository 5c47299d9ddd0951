"""`paddler queue` as an operator meets it: the real command against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner
from queue_calls import begin, finish, leave, submit, take

from paddler.cli import cli
from paddler.clock import SystemClock
from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.queue_cli.tables import duration
from paddler.store.client import Store
from paddler.store.scripts import PoolScripts
from workers.maintenance.upkeep import Upkeep

pytestmark = pytest.mark.anyio

Queue = Callable[..., Awaitable[tuple[int, str]]]
COLUMNS = 80


@pytest.fixture
def pool(store: Store) -> PoolScripts:
    return store.pool("default")


@pytest.fixture
def queue(store: Store) -> Queue:
    """Runs the command; returns its exit code and output. No line is longer than the terminal is wide."""

    async def run(*arguments: str, url: str = store.url) -> tuple[int, str]:
        environment = {"PADDLER_REDIS_URL": url, "PADDLER_REDIS_PREFIX": store.prefix, "COLUMNS": str(COLUMNS)}
        result = await asyncio.to_thread(
            CliRunner().invoke, cli, ["queue", *arguments], env=environment, prog_name="paddler"
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def words(text: str) -> str:
    """Without the frames of messages and the breaks of lines."""
    return " ".join(text.replace("│", " ").replace("\u00a0", " ").split())


async def register(pool: PoolScripts, agent: str, *, slots: int = 1, **more: Any) -> None:
    snapshot = {"slots": slots, "state": "ready", "name": "a-host-with-a-long-name", **more}
    await pool.register(agent, lease_ms=60_000, model="m", seen_s=1, snapshot=snapshot)


async def die(pool: PoolScripts) -> str:
    """A request that killed three agents."""
    request_id, _ = await submit(pool, now=0, tenant="t")
    for number in range(3):
        await register(pool, f"a{number}")
        ((_, attempt),) = await take(pool, f"a{number}")
        await begin(pool, f"a{number}", request_id, attempt, now=0)
        await pool.redis.zadd(pool.keys.agents(), {f"a{number}": 1})
        await pool.reap(f"a{number}", max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME)
    return request_id


async def test_a_fleet_that_never_was(queue: Queue) -> None:
    code, text = await queue()
    assert code == 0
    assert "No worker runs" in text
    assert "pool default" in text
    assert "no agent; what waits is served by the first to come" in text
    assert max(map(len, text.splitlines())) <= COLUMNS


async def test_everything_within_80_columns(queue: Queue, store: Store, pool: PoolScripts) -> None:
    await Upkeep(store, SystemClock(), lease_ms=500).run_once()
    agent = "agent-0123456789abcdef"
    await register(pool, agent, slots=100, state="leaving", prefill=123456.5, rate=12345.2)
    await register(pool, "agent-fedcba9876543210", slots=2)
    running = [(await submit(pool, now=0))[0] for _ in range(2)]
    waiting = [(await submit(pool, now=0, request_class=one))[0] for one in ("normal", "batch", "interactive")]
    await pool.redis.zadd(pool.keys.agents(), {"agent-fedcba9876543210": 1})
    await pool.redis.hset(pool.keys.counters(), mapping={f"repaired_{n}": 10**9 + n for n in range(9)})
    of_disk = {"hits": 9 * 10**9, "misses": 10**9, "tokens": 10**12, "saved_ms": 1234, "refused": 2}
    await pool.redis.hset(pool.keys.counters(), mapping={f"kv_disk_{what}": one for what, one in of_disk.items()})

    code, text = await queue()
    assert code == 0
    assert max(map(len, text.splitlines())) <= COLUMNS
    text = words(text)
    assert "No worker" not in text
    assert "1 interactive, 1 normal, 1 batch; the oldest for" in text
    assert "demand 4 unfinished, and 1 of class batch" in text
    assert f"{agent} a-host-with… leaving 0/100 123,456 12,345" in text
    assert "agent-fedcba9876543210 a-host-with… lost 2/2 - - over" in text
    assert "accepted 5" in text
    assert "tier disk 9,000,000,000 of 10,000,000,000 blocks found, 1,000,000,000,000 tokens came back" in text
    assert "(1.2 s saved), 2 refused" in text
    assert "kv_disk" not in text
    assert "tier ram" not in text

    code, text = await queue("--json", "--pool", "default")
    shown = json.loads(text)
    assert (code, shown["worker"], len(shown["pools"])) == (0, True, 1)
    (default,) = shown["pools"]
    assert default["waiting"] == {"interactive": 1, "normal": 1, "batch": 1}
    assert 0 <= default["oldest_wait_ms"] < 60_000
    assert (default["demand"], default["demand_batch"], default["counters"]["accepted"]) == (4, 1, 5)
    assert [(lane["agent"], lane["requests"]) for lane in default["lanes"]] == [
        (agent, 0),
        ("agent-fedcba9876543210", 2),
    ]
    for request_id in (*running, *waiting):
        await pool.cancel(request_id, CANCELLED_FRAME)
    await leave(pool, agent, "agent-fedcba9876543210")


async def test_what_waits_in_order(queue: Queue, pool: PoolScripts) -> None:
    assert await queue("waiting") == (0, "Nothing waits in pool default.\n")
    normal, _ = await submit(pool, now=0, prompt="x" * 1200, tenant="a-tenant-with-a-long-name")
    first, _ = await submit(pool, now=0, request_class="interactive")
    _, text = await queue("waiting")
    assert max(map(len, text.splitlines())) <= COLUMNS
    header, *rows = text.splitlines()
    assert header.split() == ["#", "id", "class", "tenant", "waited", "prompt"]
    assert [row.split()[:3] for row in rows] == [["0", first, "interactive"], ["1", normal, "normal"]]
    assert rows[1].split()[-1] == "1,200"
    _, text = await queue("waiting", "--json", "--limit", "1")
    (one,) = json.loads(text)
    assert (one["id"], one["position"], one["served_as"]) == (first, 0, "interactive")
    assert await queue("waiting", "--pool", "other") == (0, "Nothing waits in pool other.\n")
    code, text = await queue("cancel", first, normal)
    assert (code, text) == (0, f"{first}: cancelled\n{normal}: cancelled\n")
    assert await pool.redis.xlen(pool.keys.demand()) == 0


async def test_cancelling_what_runs_has_ended_or_is_unknown(queue: Queue, pool: PoolScripts) -> None:
    await register(pool, "a")
    running, _ = await submit(pool, now=0)
    await take(pool, "a")
    await begin(pool, "a", running, 1, now=0)
    assert await queue("cancel", running) == (0, f"{running}: its agent is told to stop\n")
    ended, _ = await submit(pool, now=0)
    await pool.cancel(ended, CANCELLED_FRAME)
    unknown = "default." + "x" * 22
    code, text = await queue("cancel", ended, unknown)
    assert code == 1
    assert words(text).startswith(f"{ended}: had ended already {unknown}: is not known")
    code, text = await queue("cancel", "nonsense")
    assert code == 2
    assert "'nonsense' is no request id; it looks like <pool>.<22 characters>." in words(text)
    await leave(pool, "a")


async def test_dead_letters(queue: Queue, pool: PoolScripts) -> None:
    assert await queue("dead") == (0, "No dead letters in pool default.\n")
    dead, lost = await die(pool), await die(pool)
    await pool.redis.delete(pool.keys.request(lost))  # a day later
    _, text = await queue()
    assert "2 dead letters: paddler queue dead" in words(text)
    _, text = await queue("dead")
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert [[row.split()[0], row.split()[-1]] for row in text.splitlines()[1:]] == [
        [lost, "forgotten"],
        [dead, "requeued"],
    ]
    _, text = await queue("dead", "--json")
    assert [(one["deaths"], one["can_requeue"]) for one in json.loads(text)] == [(3, False), (3, True)]

    code, text = await queue("requeue", dead, lost)
    assert code == 1
    assert f"{dead}: waits again" in text
    assert f"{lost}: died more than a day ago" in text
    await register(pool, "b")
    ((taken, attempt),) = await take(pool, "b")
    assert taken == dead
    await finish(pool, "b", dead, attempt, now=0)
    assert await queue("drop", lost) == (0, f"{lost}: dropped\n")
    assert await queue("drop", lost) == (1, f"{lost}: is no dead letter\n")
    assert await pool.redis.xlen(pool.keys.dead()) == 0
    await leave(pool, "b")


async def test_mistakes_are_explained(queue: Queue, store: Store) -> None:
    await store.add_pool("chat")
    code, text = await queue("--pool", "caht")
    assert (code, "There is no pool 'caht'; there is: chat, default." in words(text)) == (1, True)
    code, text = await queue("--json", "dead")
    assert (code, "Put --pool and --json behind dead." in words(text)) == (2, True)
    for arguments in ((), ("dead",), ("cancel", "default." + "x" * 22)):
        code, text = await queue(*arguments, url="redis://user:secret@127.0.0.1:1/0")
        assert code == 1
        assert "Redis at redis://user:***@127.0.0.1:1/0 cannot be used" in words(text)
        assert "secret" not in text


async def test_the_server_may_be_named_on_either_side(queue: Queue, store: Store, pool: PoolScripts) -> None:
    waiting, _ = await submit(pool, now=0)
    away = "redis://127.0.0.1:1/0"
    assert waiting in (await queue("--redis-url", store.url, "waiting"))[1]
    assert (await queue("--redis-url", store.url, "waiting", "--redis-url", away))[0] == 1
    assert (await queue("--redis-url", store.url, "cancel", waiting, url=store.url))[0] == 0


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (59_940, "59.9 s"),
        (125_000, "2 min 05 s"),
        (7_260_000, "2 h 01 min"),
    ],
)
def test_durations(ms: float, said: str) -> None:
    assert duration(ms) == said
