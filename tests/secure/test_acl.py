"""ACL users: the file in the docs is what is printed, nothing is forgotten in it, and nobody has more than he needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from paddler.doctor.acl_command import command
from paddler.store import acl
from paddler.store.acl import (
    FILE_KEYS,
    POOL_KEYS,
    ROLES,
    Role,
    acl_file,
    acl_user,
    channel_patterns,
    key_patterns,
    user_name,
)
from paddler.store.keys import DEFAULT_PREFIX, FileKeys, PoolKeys
from paddler.store.tenant_keys import TenantKeys
from paddler.testing.servers import RedisServer

DOC = Path(__file__).parents[2] / "docs" / "acl" / "users.acl"
NO_KEYS = {"permanent", "control"}
"""Of `PoolKeys`: a set of names, and a channel."""
OWN = PoolKeys(DEFAULT_PREFIX, "x")


@pytest.mark.parametrize(("keys", "table"), [(PoolKeys, POOL_KEYS), (FileKeys, FILE_KEYS)])
def test_every_key_stands_in_a_table(keys: type, table: dict[str, str]) -> None:
    """Who adds a key says here who may read and write it."""
    builders = {name for name, _ in inspect.getmembers(keys, inspect.isfunction) if not name.startswith("_")}
    assert builders - NO_KEYS == set(table)
    assert all(set(row.split()) <= {"r", "w", "rw", "-"} and len(row.split()) == len(ROLES) for row in table.values())


def _built(module: ModuleType) -> Iterator[str]:
    """A key or channel of each builder of a module, all of them of the pool `x`, with `x` for whatever else."""
    known: dict[str, Any] = {
        "prefix": DEFAULT_PREFIX,
        "keys": OWN,
        "base": OWN.base,
        "pool_base": OWN.base,
        "pool": "x",
    }

    def call(function: Callable[..., Any]) -> Any:
        return function(*(known.get(name, "x") for name in inspect.signature(function).parameters))

    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        built = call(member)
        if isinstance(built, str):
            yield built
        else:
            yield built.base  # what a function is called with
            methods = [own for own, _ in inspect.getmembers(type(built), inspect.isfunction) if own[0] != "_"]
            yield from (str(call(getattr(built, own))) for own in methods if own != "permanent")


@pytest.mark.parametrize("name", [path.stem for path in Path(acl.__file__).parent.glob("*_keys.py")])
def test_the_keys_of_other_modules_are_somebodys(name: str) -> None:
    """`POOL_SUFFIXES`, `SUFFIXES` and `POOL_CHANNELS` have them by their ends."""
    roles = [role for role in Role if role is not Role.ADMIN]
    allowed = [
        one for role in roles for one in (*key_patterns(role, DEFAULT_PREFIX), *channel_patterns(role, DEFAULT_PREFIX))
    ]
    patterns = {one.lstrip("%RW").lstrip("~&").replace("{", "[{]") for one in allowed}
    built = list(_built(import_module(f"paddler.store.{name}")))
    assert built
    assert [key for key in built if not any(fnmatchcase(key, pattern) for pattern in patterns)] == []


def test_the_file_in_the_docs_is_what_is_printed() -> None:
    assert CliRunner().invoke(command, []).output == DOC.read_text() == acl_file(DEFAULT_PREFIX, ["default"])


@pytest.mark.parametrize("name", ["valkey", "redis7"])
def test_a_server_takes_the_file(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Redis 7.0, too, which refuses a file with one command that it does not know."""
    file = tmp_path / "users.acl"
    file.write_text(DOC.read_text().replace("user default off", "user default on nopass ~* &* +@all"))
    running: RedisServer = request.getfixturevalue(name)
    server = RedisServer(running.binary)
    server.arguments = {"aclfile": str(file)}
    server.start()
    client = redis.Redis.from_url(server.url)
    assert len(client.execute_command("ACL", "LIST")) == len(DOC.read_text().splitlines())
    client.close()
    server.close()


def test_passwords_are_printed_as_hashes(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("very secret\n")
    flags = ["--password-file", f"balancer={password}", "--pool", "chat", "--pool", "embed", "--redis-prefix", "own"]
    lines = CliRunner().invoke(command, flags).output.splitlines()
    assert [line.split()[1] for line in lines] == [
        *("default", "paddler-agent-chat", "paddler-agent-embed", "paddler-balancer", "paddler-worker"),
        *("paddler-operator", "paddler-autoscale", "paddler-admin"),
    ]
    assert "very secret" not in str(lines)
    assert " #b3bc49e0d2e4ba0a" not in lines[1]
    assert lines[3].split()[3].startswith("#")
    assert "~own:{chat}:lane:*" in lines[1]
    assert "embed" not in lines[1]
    refused = CliRunner().invoke(command, ["--password-file", "nobody=x"])
    assert refused.exit_code == 2
    assert "not ROLE=FILE" in refused.output


@pytest.fixture(scope="module", params=["valkey", "redis7"])
def admin(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A server with our users, as the file has them."""
    server: RedisServer = request.getfixturevalue(request.param)
    client = redis.Redis.from_url(server.url)
    users = [(Role.AGENT, "default"), *((role, "*") for role in ROLES if role is not Role.AGENT)]
    for role, pool in users:
        client.execute_command("ACL", "SETUSER", *acl_user(role, DEFAULT_PREFIX, pool).split()[1:])
    yield client
    for role, pool in users:
        client.execute_command("ACL", "DELUSER", user_name(role, pool))
    client.close()


AGENT, BALANCER, WORKER, OPERATOR, AUTOSCALE = (user_name(role, "default") for role in ROLES)
POOL, OTHER = PoolKeys(DEFAULT_PREFIX, "default"), PoolKeys(DEFAULT_PREFIX, "other")
TENANT = TenantKeys(DEFAULT_PREFIX, "alice")


def may(admin: redis.Redis, user: str, *call: str) -> bool:
    return admin.execute_command("ACL", "DRYRUN", user, *call) == b"OK"


@pytest.mark.parametrize(
    ("user", "call"),
    [
        (AGENT, ("XREADGROUP", "GROUP", "agent", "a", "STREAMS", POOL.lane("a"), ">")),
        (AGENT, ("FCALL", "f", "1", POOL.base)),
        (AGENT, ("GET", POOL.payload("r"))),
        (AGENT, ("EXPIRE", POOL.response("r"), "1")),
        (AGENT, ("SUBSCRIBE", POOL.control("a"))),
        (AGENT, ("HGETALL", f"{POOL.base}:desired")),
        (BALANCER, ("HSET", f"{POOL.base}:desired", "state", "{}")),
        (BALANCER, ("HSET", f"{DEFAULT_PREFIX}:keys", "id", "{}")),
        (BALANCER, ("FCALL", "f", "1", OTHER.base)),
        (BALANCER, ("FCALL", "f", "1", TENANT.base)),
        (WORKER, ("FCALL", "f", "1", TENANT.base)),
        (BALANCER, ("FUNCTION", "LOAD", "x")),
        (BALANCER, ("GET", POOL.response("r"))),
        (BALANCER, ("SUBSCRIBE", f"{DEFAULT_PREFIX}:inbox:b")),
        (WORKER, ("FUNCTION", "LOAD", "x")),
        (WORKER, ("SCAN", "0")),
        (OPERATOR, ("HGETALL", POOL.request("r"))),
        (OPERATOR, ("XLEN", POOL.demand())),
        (OPERATOR, ("GET", f"{POOL.base}:autoscale")),
        (AUTOSCALE, ("XREAD", "BLOCK", "1", "STREAMS", POOL.demand(), POOL.demand_batch(), "0-0", "0-0")),
        (AUTOSCALE, ("FCALL", "f", "1", f"{POOL.base}:autoscale:lease")),
        (AUTOSCALE, ("FCALL", "f", "1", POOL.base)),
        (AUTOSCALE, ("SADD", f"{DEFAULT_PREFIX}:pools", "chat")),
    ],
)
def test_what_each_may_do(admin: redis.Redis, user: str, call: tuple[str, ...]) -> None:
    assert may(admin, user, *call)


@pytest.mark.parametrize(
    ("user", "call"),
    [
        (AGENT, ("FUNCTION", "LOAD", "x")),
        (AGENT, ("EVAL", "return 1", "0")),
        (AGENT, ("GET", POOL.response("r"))),
        (AGENT, ("GET", POOL.idempotency("t", "k"))),
        (AGENT, ("GET", OTHER.payload("r"))),
        (AGENT, ("HGETALL", f"{DEFAULT_PREFIX}:keys")),
        (AGENT, ("HGETALL", f"{DEFAULT_PREFIX}:tenant:{{t}}:usage:1")),
        (AGENT, ("HSET", f"{POOL.base}:desired", "state", "{}")),
        (AGENT, ("XADD", f"{POOL.base}:desired:history", "*", "state", "{}")),
        (OPERATOR, ("HGETALL", f"{DEFAULT_PREFIX}:keys")),
        (OPERATOR, ("HSET", f"{POOL.base}:desired", "state", "{}")),
        (WORKER, ("HSET", f"{DEFAULT_PREFIX}:keys", "id", "{}")),
        (AGENT, ("FCALL", "f", "1", OTHER.base)),
        (AGENT, ("FCALL", "f", "1", TENANT.base)),
        (AGENT, ("SUBSCRIBE", OTHER.control("a"))),
        (AGENT, ("GET", FileKeys(DEFAULT_PREFIX).file("file-1"))),
        (AGENT, ("KEYS", "*")),
        (AGENT, ("SCAN", "0")),
        (AGENT, ("MONITOR",)),
        (AGENT, ("CONFIG", "GET", "requirepass")),
        (BALANCER, ("EVAL", "return 1", "0")),
        (BALANCER, ("FLUSHALL",)),
        (BALANCER, ("CONFIG", "SET", "maxmemory", "1")),
        (BALANCER, ("ACL", "SETUSER", "x")),
        (BALANCER, ("GET", "anything:else")),
        (WORKER, ("FLUSHALL",)),
        (WORKER, ("GET", "anything:else")),
        (OPERATOR, ("GET", POOL.payload("r"))),
        (OPERATOR, ("GET", POOL.journal("r"))),
        (OPERATOR, ("GET", FileKeys(DEFAULT_PREFIX).chunk("file-1", 0))),
        (OPERATOR, ("HSET", POOL.request("r"), "state", "done")),
        (OPERATOR, ("FCALL", "f", "1", POOL.base)),
        (OPERATOR, ("SUBSCRIBE", f"{DEFAULT_PREFIX}:inbox:b")),
        (AUTOSCALE, ("FUNCTION", "LOAD", "x")),
        (AUTOSCALE, ("GET", POOL.payload("r"))),
        (AUTOSCALE, ("HGETALL", f"{DEFAULT_PREFIX}:keys")),
        (AUTOSCALE, ("FCALL", "f", "1", TENANT.base)),
        (AUTOSCALE, ("HSET", f"{POOL.base}:desired", "state", "{}")),
        (AUTOSCALE, ("SUBSCRIBE", f"{DEFAULT_PREFIX}:inbox:b")),
        (BALANCER, ("SET", f"{POOL.base}:autoscale", "{}")),
    ],
)
def test_what_each_may_not_do(admin: redis.Redis, user: str, call: tuple[str, ...]) -> None:
    assert not may(admin, user, *call)
