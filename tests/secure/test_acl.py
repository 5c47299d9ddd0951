"""ACL users: the file in the docs is what is printed, nothing is forgotten in it, and nobody has more than he needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from paddler.doctor.acl_command import command
from paddler.store.acl import FILE_KEYS, POOL_KEYS, Role, acl_file, acl_user, user_name
from paddler.store.keys import DEFAULT_PREFIX, FileKeys, PoolKeys
from paddler.testing.servers import RedisServer

DOC = Path(__file__).parents[2] / "docs" / "acl" / "users.acl"
NO_KEYS = {"permanent", "control"}
"""Of `PoolKeys`: a set of names, and a channel."""


@pytest.mark.parametrize(("keys", "table"), [(PoolKeys, POOL_KEYS), (FileKeys, FILE_KEYS)])
def test_every_key_stands_in_a_table(keys: type, table: dict[str, str]) -> None:
    """Who adds a key says here who may read and write it."""
    builders = {name for name, _ in inspect.getmembers(keys, inspect.isfunction) if not name.startswith("_")}
    assert builders - NO_KEYS == set(table)
    assert all(set(row.split()) <= {"r", "w", "rw", "-"} and len(row.split()) == 4 for row in table.values())


def test_the_file_in_the_docs_is_what_is_printed() -> None:
    assert CliRunner().invoke(command, []).output == DOC.read_text() == acl_file(DEFAULT_PREFIX, ["default"])


def test_passwords_are_printed_as_hashes(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("very secret\n")
    flags = ["--password-file", f"balancer={password}", "--pool", "chat", "--pool", "embed", "--redis-prefix", "own"]
    lines = CliRunner().invoke(command, flags).output.splitlines()
    assert [line.split()[1] for line in lines] == [
        *("default", "paddler-agent-chat", "paddler-agent-embed", "paddler-balancer", "paddler-worker"),
        *("paddler-operator", "paddler-admin"),
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
    users = [(Role.AGENT, "default"), *((role, "*") for role in (Role.BALANCER, Role.WORKER, Role.OPERATOR))]
    for role, pool in users:
        client.execute_command("ACL", "SETUSER", *acl_user(role, DEFAULT_PREFIX, pool).split()[1:])
    yield client
    for role, pool in users:
        client.execute_command("ACL", "DELUSER", user_name(role, pool))
    client.close()


AGENT, BALANCER, WORKER, OPERATOR = (
    user_name(role, "default") for role in (Role.AGENT, Role.BALANCER, Role.WORKER, Role.OPERATOR)
)
POOL, OTHER = PoolKeys(DEFAULT_PREFIX, "default"), PoolKeys(DEFAULT_PREFIX, "other")


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
        (BALANCER, ("FCALL", "f", "1", OTHER.base)),
        (BALANCER, ("FUNCTION", "LOAD", "x")),
        (BALANCER, ("GET", POOL.response("r"))),
        (BALANCER, ("SUBSCRIBE", f"{DEFAULT_PREFIX}:inbox:b")),
        (WORKER, ("FUNCTION", "LOAD", "x")),
        (WORKER, ("SCAN", "0")),
        (OPERATOR, ("HGETALL", POOL.request("r"))),
        (OPERATOR, ("XLEN", POOL.demand())),
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
        (AGENT, ("FCALL", "f", "1", OTHER.base)),
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
    ],
)
def test_what_each_may_not_do(admin: redis.Redis, user: str, call: tuple[str, ...]) -> None:
    assert not may(admin, user, *call)
