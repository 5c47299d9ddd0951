"""`paddler keys` and `paddler usage` as an operator meets them: the real commands against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from paddler.cli import cli
from paddler.clock import SystemClock
from paddler.store.client import Store
from paddler.store.tenant_keys import used_key
from paddler.tenants.keys import ApiKeys
from paddler.tenants.ring import KeyRing

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Result]]
COLUMNS = 80


@pytest.fixture
def paddler(store: Store) -> Run:
    """Runs a command; no line of its tables is longer than the terminal is wide."""

    async def run(*arguments: str, url: str = store.url) -> Result:
        environment = {"PADDLER_REDIS_URL": url, "PADDLER_REDIS_PREFIX": store.prefix, "COLUMNS": str(COLUMNS)}
        result = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment, prog_name="paddler")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


async def lets_in(store: Store, secret: str) -> bool:
    ring = KeyRing(ApiKeys(store, SystemClock()), SystemClock())
    await ring.refresh_once()
    try:
        ring.find(secret)
    except Exception:
        return False
    return True


async def test_a_keys_life(paddler: Run, store: Store) -> None:
    assert "no API keys" in (await paddler("keys")).output
    made = await paddler("keys", "create", "alice", "--requests-per-minute", "60", "--weight", "2")
    secret = made.stdout.strip()
    assert secret.startswith("pd-")
    assert "\n" not in secret, "a script can take it"
    assert "this once" in made.stderr
    assert await lets_in(store, secret)
    key_id = secret.split("-")[1]
    listed = (await paddler("keys", "list")).output
    assert all(word in listed for word in (key_id, "alice", "inference", "active", "60 requests/min"))
    assert secret[20:] not in listed
    assert max(map(len, listed.splitlines())) <= COLUMNS

    await paddler("keys", "limit", key_id, "--max-in-flight", "3", "--requests-per-minute", "0")
    shown = json.loads((await paddler("keys", "show", key_id, "--json")).output)
    assert (shown["limits"]["max_in_flight"], shown["limits"]["requests_per_minute"]) == (3, None)
    assert shown["limits"]["weight"] == 2, "what is not named stays"
    assert not {"secret", "secret_hash", "old_hash"} & set(shown)

    second = (await paddler("keys", "rotate", key_id, "--overlap", "60000")).stdout.strip()
    assert [await lets_in(store, one) for one in (secret, second)] == [True, True]
    assert "revoke it first" in (await paddler("keys", "forget", key_id)).output
    assert (await paddler("keys", "revoke", key_id)).output == f"{key_id}: revoked\n"
    assert [await lets_in(store, one) for one in (secret, second)] == [False, False]
    assert "revoked" in (await paddler("keys", "list")).output
    assert (await paddler("keys", "forget", key_id)).output == f"{key_id}: forgotten\n"
    assert "no API keys" in (await paddler("keys", "list")).output


async def test_json_for_programs(paddler: Run, store: Store) -> None:
    flags = ("--tenant", "acme", "--scope", "management", "--scope", "agent", "--expires", "2040-01-31")
    made = json.loads((await paddler("keys", "create", "ci", *flags, "--json")).stdout)
    assert (made["tenant"], made["scopes"], made["state"]) == ("acme", ["management", "agent"], "active")
    assert made["expires_ms"] == 2_211_580_800_000
    assert await lets_in(store, made["secret"])
    assert [one["id"] for one in json.loads((await paddler("keys", "list", "--json")).stdout)] == [made["id"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "a b"), "letters, digits, dots"),
        (("create", "a", "--expires", "soon"), "no day or time"),
        (("create", "a", "--expires", "2020-01-01"), "over already"),
        (("create", "a", "--scope", "all"), "--scope"),
        (("show", "nobody"), "There is no key"),
        (("revoke", "nobody"), "There is no key"),
        (("rotate", "nobody"), "There is no key"),
    ],
)
async def test_mistakes_are_told_and_change_nothing(
    paddler: Run, store: Store, arguments: tuple[str, ...], words: str
) -> None:
    result = await paddler("keys", *arguments)
    assert result.exit_code != 0
    assert words in " ".join(result.output.replace("│", " ").split())
    assert await ApiKeys(store, SystemClock()).num_keys() == 0


async def test_a_redis_that_is_not_there(paddler: Run) -> None:
    result = await paddler("keys", "list", url="redis://127.0.0.1:1/0")
    assert result.exit_code == 1
    assert "--redis-url" in result.output


async def test_usage_of_what_has_just_ended(paddler: Run, store: Store) -> None:
    """No balancer runs: the command accounts itself."""
    assert "Nothing was used" in (await paddler("usage")).output
    new = await ApiKeys(store, SystemClock()).create("alice")
    entry: dict[str, Any] = {"id": "default.x", "tenant": "alice", "key": new.key.id, "model": "tiny"}
    entry |= {"prompt": 1200, "cached": 300, "output": 45, "first": 1}
    name = used_key(store.pool("default").keys.base)
    await store.redis.xadd(name, entry)
    await store.redis.expire(name, 60)
    table = (await paddler("usage")).output
    assert all(word in table for word in ("alice", "tiny", "1,200", "300", "45"))
    assert max(map(len, table.splitlines())) <= COLUMNS
    told = json.loads((await paddler("usage", "--by", "day", "--by", "model", "--json")).output)
    (row,) = told["usage"]
    assert (row["date"], row["model"], row["requests"], row["prompt_tokens"]) == (told["to"], "tiny", 1, 1200)
    assert "not behind --to" in (await paddler("usage", "--from", "2030-01-02", "--to", "2030-01-01")).output
