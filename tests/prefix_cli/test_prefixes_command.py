"""`paddler prefixes` as an operator meets it: the real command against a real balancer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from http_harness import HttpBalancer, http_balancer

from paddler.cli import cli
from paddler.prefixes.records import Held, encode_held
from paddler.store.client import Store

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[str]]
COLUMNS = 80


@pytest.fixture
async def balancer(store: Store) -> AsyncIterator[HttpBalancer]:
    async with http_balancer(store.url, store.prefix) as balancer:
        yield balancer


@pytest.fixture
def prefixes(balancer: HttpBalancer) -> Run:
    """Runs the command; no line is longer than the terminal is wide."""

    async def run(*arguments: str, code: int = 0, text: str = "") -> str:
        environment = {"PADDLER_MANAGEMENT_ADDR": balancer.url("management"), "COLUMNS": str(COLUMNS)}
        result = await asyncio.to_thread(
            CliRunner().invoke, cli, ("prefixes", *arguments), env=environment, input=text, prog_name="paddler"
        )
        # The balancer is in this process, and what it logs meanwhile comes out in the same place.
        said = [line for line in result.output.splitlines() if "[debug" not in line]
        assert result.exit_code == code, said
        assert "--json" in arguments or max(map(len, said), default=0) <= COLUMNS
        return "\n".join(said)

    return run


async def test_a_prefixs_life(prefixes: Run, store: Store) -> None:
    assert "Nothing is pinned in pool default" in await prefixes("list")
    assert "rules: version 1" in await prefixes("add", "rules", "--system", "Be brief.")
    keys, client = store.pool("default").keys, store.redis
    held = [Held("rules", 1, "resident", 1234, 5_600_000)]
    await client.zadd(keys.agents(), {"a1": 2e12, "a2": 2e12})
    await client.hset(keys.agent("a1"), mapping={"name": "one", "pinned": encode_held(held)})
    refused = [Held("rules", 1, "refused", detail="it has too many tokens")]
    await client.hset(keys.agent("a2"), mapping={"pinned": encode_held(refused)})
    listed = await prefixes("list")
    assert all(word in listed for word in ("rules", "everybody", "1,234", "5.6 MB", "1 refused, 1 resident"))
    shown = await prefixes("show", "rules")
    assert all(word in shown for word in ("version 1", "one", "resident", "refused: it has too many tokens"))
    await client.delete(keys.agents(), keys.agent("a1"), keys.agent("a2"))
    whole = json.loads(await prefixes("show", "rules", "--json"))
    assert whole["messages"] == [{"role": "system", "content": "Be brief."}]
    assert [one["name"] for one in json.loads(await prefixes("list", "--json"))["prefixes"]] == ["rules"]
    assert "not pinned any more" in await prefixes("remove", "rules")
    assert "no pinned prefix 'rules'" in await prefixes("remove", "rules", code=1)


async def test_from_files(prefixes: Run, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "A book."}]
    tool = {"type": "function", "function": {"name": "look"}}
    for told in (messages, {"messages": messages, "tools": [tool]}):
        (tmp_path / "m.json").write_text(json.dumps(told))
        await prefixes("add", "book", "--messages", str(tmp_path / "m.json"), "--tenant", "acme")
        whole = json.loads(await prefixes("show", "book", "--json"))
        assert (whole["messages"], whole["tenant"]) == (messages, "acme")
        assert len(whole["tools"]) == (0 if isinstance(told, list) else 1)
    await prefixes("add", "book", "--prompt", "-", text="Once upon a time")
    assert json.loads(await prefixes("show", "book", "--json"))["prompt"] == "Once upon a time"
    await prefixes("remove", "book")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["add", "a"], 2, "Give one of"),
        (["add", "a", "--system", "x", "--prompt", "-"], 2, "Give one of"),
        (["add", "a b", "--system", "x"], 1, "name"),
        (["add", "a", "--messages", "-"], 2, "neither a list nor an object"),
        (["add", "a", "--messages", "/nowhere.json"], 2, "No such file"),
        (["show", "ü"], 2, "NAME must be"),
        (["list", "--pool", "chat"], 1, "no pool"),
    ],
)
async def test_mistakes(prefixes: Run, arguments: list[str], code: int, words: str) -> None:
    said = await prefixes(*arguments, code=code, text="nonsense")
    assert words in " ".join(said.replace("│", " ").split())
