"""`paddler pools`, `paddler agents` and `paddler requests` as an operator meets them: the commands, a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner
from queue_calls import begin, finish, leave, submit, take

from paddler.cli import cli
from paddler.issues import encode_issues, issue_of
from paddler.store.client import Store
from paddler.store.results import Emission
from paddler.store.scripts import PoolScripts
from paddler.testing.waiting import wait_until
from paddler.tier_stats import TierStats, encode_tiers
from paddler.wire.balancer import Tokens, encode_frame

pytestmark = pytest.mark.anyio

Command = Callable[..., Awaitable[tuple[int, str]]]
COLUMNS = 80
LONG = "a-name-that-is-rather-long"


@pytest.fixture
def pool(store: Store) -> PoolScripts:
    return store.pool("default")


@pytest.fixture
def paddler(store: Store) -> Command:
    """Runs the command; returns its exit code and output. No line of a table is longer than the terminal is wide."""

    async def run(*arguments: str, url: str = store.url) -> tuple[int, str]:
        environment = {"PADDLER_REDIS_URL": url, "PADDLER_REDIS_PREFIX": store.prefix, "COLUMNS": str(COLUMNS)}
        result = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment, prog_name="paddler")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if not {"--json", "cancel"}.intersection(arguments):
            assert max(map(len, result.output.splitlines()), default=0) <= COLUMNS, result.output
        return result.exit_code, result.output

    return run


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


async def register(pool: PoolScripts, agent: str, *, slots: int = 1, **more: Any) -> None:
    snapshot = {"slots": slots, "state": "ready", "name": LONG, **more}
    await pool.register(agent, lease_ms=3_600_000, model="m", seen_s=1, snapshot=snapshot)


async def test_pools(paddler: Command, pool: PoolScripts, store: Store) -> None:
    await store.add_pool("chat")
    await register(pool, "a", slots=2)
    ids = [(await submit(pool, now=0))[0] for _ in range(3)]
    code, text = await paddler("pools")
    header, chat, default = (line.split() for line in text.splitlines())
    assert (code, header) == (0, ["pool", "agents", "slots", "waiting", "demand", "batch", "oldest", "dead"])
    assert chat == ["chat", "0", "0/0", "0", "0", "0", "-", "0"]
    assert (default[:6], default[-1]) == (["default", "1", "2/2", "1", "3", "0"], "0")
    _, text = await paddler("pools", "--json", "--pool", "default")
    (told,) = json.loads(text)
    assert (told["pool"], told["demand"], len(told["lanes"])) == ("default", 3, 1)
    code, text = await paddler("pools", "--pool", "caht")
    assert (code, "There is no pool 'caht'; there is: chat, default." in words(text)) == (1, True)
    await leave(pool, "a")
    for request_id in ids:
        await paddler("requests", "cancel", request_id)


async def test_agents(paddler: Command, pool: PoolScripts) -> None:
    assert await paddler("agents") == (0, "No agent is in pool default.\n")
    issue = issue_of("ModelFileDoesNotExist", "no such file", "/m.gguf", waits=True)
    more = {"rate": 12.5, "prefill": 345.0, "prompt_tokens": 100, "cached_tokens": 25, "host": "here", "pid": 7}
    more |= {"context_size": 8192, "held_tokens": 1024, "held_sequences": 3, "max_parked": 64}
    more |= {"tiers": encode_tiers((TierStats("shared", num_misses=4, num_failures=1), TierStats("peer")))}
    await register(pool, "agent-0123456789abcdef", slots=2, version="0.1.0", build="llama.cpp b1", **more)
    await register(pool, "agent-fedcba9876543210", slots=0, state="failed", issues=encode_issues((issue,)))
    for arguments in (("agents",), ("agents", "list")):
        code, text = await paddler(*arguments)
        assert (code, "agent-0123456789abcdef" in text, "no such file" in text) == (0, True, True)
    _, text = await paddler("agents", "show", "agent-0123456789abcdef")
    told = words(text)
    for part in (
        "0 busy of 2",
        "output 12 tok/s, prompts 345 tok/s",
        "25% of 100 prompt tokens",
        "1,024 of 8,192 tokens in 3 sequences, 64 of them ended at most",
        "tier shared 0 of 4 blocks found, 1 failures",
        "tier peer nothing yet",
        "7 on here",
        "llama.cpp b1",
    ):
        assert part in told
    _, text = await paddler("agents", "show", "--json", "agent-fedcba9876543210")
    shown = json.loads(text)
    assert (shown["pool"], shown["agent"]["state"]) == ("default", "failed")
    _, text = await paddler("agents", "--json")
    assert [one["agent"]["agent"] for one in json.loads(text)] == ["agent-0123456789abcdef", "agent-fedcba9876543210"]
    code, text = await paddler("agents", "show", LONG)
    assert (code, "give an id" in words(text)) == (1, True)
    code, text = await paddler("agents", "drain", "nobody")
    assert (code, "No agent has the id or name 'nobody'" in words(text)) == (1, True)
    await leave(pool, "agent-0123456789abcdef", "agent-fedcba9876543210")


async def test_drain_undrain_remove(paddler: Command, pool: PoolScripts) -> None:
    await register(pool, "a", process_id="p")
    request_id, _ = await submit(pool, now=0)
    await take(pool, "a")
    offset = await begin(pool, "a", request_id, 1, now=0)
    code, text = await paddler("agents", "drain", LONG)
    assert (code, words(text)) == (0, f"a ({LONG}): takes no more; 1 of its requests still run")
    assert "draining" in (await paddler("agents"))[1]
    async with pool.redis.pubsub() as channel:
        await channel.subscribe(pool.keys.control("a"))
        waiting = asyncio.ensure_future(paddler("agents", "drain", "--wait", "a"))

        async def is_told() -> bool:
            return await channel.get_message(ignore_subscribe_messages=True) is not None

        await wait_until(is_told, what="it is told again")
    assert not waiting.done()
    await pool.emit("a", [Emission(request_id, 1, offset, encode_frame(Tokens((1,), "x")))])
    await leave(pool, "a")
    assert (await waiting)[0] == 0

    await register(pool, "b", process_id="q")
    ((_, attempt),) = await take(pool, "b")
    await paddler("agents", "drain", "b")
    assert words((await paddler("agents", "undrain", "b"))[1]) == f"b ({LONG}): takes requests again"
    code, text = await paddler("agents", "remove", "b")
    assert (code, words(text)) == (0, f"b ({LONG}): ends; none of its requests runs")
    code, text = await paddler("agents", "undrain", "b")
    assert (code, "is leaving; it neither drains nor stays" in words(text)) == (1, True)
    code, text = await paddler("agents", "remove", "--force", "b")
    assert (code, words(text)) == (0, f"b ({LONG}): removed; what it had is handed over")
    assert await paddler("agents") == (0, "No agent is in pool default.\n")
    assert attempt > 1
    await paddler("requests", "cancel", request_id)


async def test_requests(paddler: Command, pool: PoolScripts) -> None:
    assert await paddler("requests") == (0, "No request waits or runs in pool default.\n")
    await register(pool, "a")
    running, _ = await submit(pool, now=0, tenant="a-tenant-with-a-long-name")
    await take(pool, "a")
    offset = await begin(pool, "a", running, 1, now=0)
    await pool.emit("a", [Emission(running, 1, offset, encode_frame(Tokens((1, 2), "x")))])
    await pool.renew("a", lease_ms=3_600_000, snapshot={"running_tokens": f'{{"{running}": 1234}}'})
    waiting, _ = await submit(pool, now=0, request_class="interactive")
    for arguments in (("requests",), ("requests", "list")):
        code, text = await paddler(*arguments)
        assert (code, running in text, waiting in text, "1,234" in text) == (0, True, True, True)
    _, text = await paddler("requests", "--json", "--state", "waiting")
    (told,) = json.loads(text)
    assert (told["id"], told["position"], "label" in told) == (waiting, 0, False)
    _, text = await paddler("requests", "list", "--json", "--agent", "a", "--limit", "1")
    assert [one["num_tokens"] for one in json.loads(text)] == [1234]

    _, text = await paddler("requests", "show", running)
    told = words(text)
    for part in ("state running", "begun once", "output 2 tokens", "accepted", "delivered", "opened", "first token"):
        assert part in told
    _, text = await paddler("requests", "show", "--json", running)
    shown = json.loads(text)
    assert (shown["tokens"], shown["events"][0]["event"], "label" in shown) == (2, "accepted", False)

    assert await paddler("requests", "cancel", waiting) == (0, f"{waiting}: cancelled\n")
    unknown = "default." + "x" * 22
    assert (await paddler("requests", "cancel", unknown))[0] == 1
    code, text = await paddler("requests", "show", unknown)
    assert (code, "no request" in words(text)) == (1, True)
    assert (await paddler("requests", "show", "nonsense"))[0] == 2
    await leave(pool, "a")
    await register(pool, "b", process_id="q")
    ((_, attempt),) = await take(pool, "b")
    assert attempt > 1
    await paddler("requests", "cancel", running)
    await leave(pool, "b")


async def test_mistakes_are_explained(paddler: Command) -> None:
    for command in ("pools", "agents", "requests"):
        code, text = await paddler(command, "--watch", "--json")
        assert (code, "--watch draws a table" in words(text)) == (2, True)
        code, text = await paddler(command, url="redis://user:secret@127.0.0.1:1/0")
        assert (code, "secret" in text) == (1, False)
        assert "Redis at redis://user:***@127.0.0.1:1/0 cannot be used" in words(text)
    assert (await paddler("agents", "--json", "list"))[0] == 2
    assert (await paddler("requests", "--state", "waiting", "list"))[0] == 2
    assert (await paddler("requests", "--state", "done"))[0] == 2


async def test_finished_requests_are_not_listed(paddler: Command, pool: PoolScripts) -> None:
    await register(pool, "a")
    request_id, _ = await submit(pool, now=0)
    await take(pool, "a")
    await finish(pool, "a", request_id, 1, now=0)
    assert await paddler("requests") == (0, "No request waits or runs in pool default.\n")
    assert "state done" in words((await paddler("requests", "show", request_id))[1])
    await leave(pool, "a")


@pytest.mark.parametrize(
    "arguments", ["requests list", "agents list", "queue waiting", "keys list", "model show"], ids=lambda one: one
)
async def test_a_server_before_the_subcommand_beats_the_variable(
    paddler: Command, store: Store, arguments: str
) -> None:
    """The group reads the variables, and puts user and password into the URL; a subcommand does not read them again."""
    group, subcommand = arguments.split()
    code, text = await paddler(group, "--redis-url", store.url, subcommand, url="redis://127.0.0.1:1/0")
    assert code == 0, text
