"""What Redis is given: a real server takes the configuration, the users are those of `paddler acl`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from container_files import DOCKER, rendered, run

from paddler.store.acl import Role, acl_file
from paddler.testing.servers import RedisServer


@pytest.fixture
def short_path() -> Iterator[Path]:
    """The path of a socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="paddler-") as folder:
        yield Path(folder)


def test_the_users_are_those_of_paddler_acl() -> None:
    assert (DOCKER / "redis/users.acl").read_text() == acl_file("paddler", ["default"])


def test_setup_makes_passwords_and_their_hashes_once(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("secrets"))
    run("sh", folder / "setup")
    made = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert made["users.acl"] == acl_file("paddler", ["default"], {role: made[role] for role in Role})
    assert len(set(made.values())) == len(made), "no two passwords are alike"
    assert all(len(made[name]) == 32 for name in (*Role, "grafana"))
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    run("sh", folder / "setup")
    assert {path.name: path.read_text() for path in (folder / "secrets").iterdir()} == made


def test_setup_renews_what_users_may_and_leaves_those_of_others(tmp_path: Path) -> None:
    """After an upgrade: with the file of an older version an agent could not even register."""
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("secrets"))
    run("sh", folder / "setup")
    users = folder / "secrets/users.acl"
    now, other = users.read_text(), "user paddler-agent-embed on #00 ~paddler:{embed} +get\n"
    users.write_text(now.replace(" +xlen", "") + other)
    run("sh", folder / "setup")
    assert users.read_text() == now + other
    assert users.stat().st_mode & 0o777 == 0o644


def test_kubernetes_has_the_same_configuration() -> None:
    (config,) = (one for one in rendered("valkey") if one["kind"] == "ConfigMap")
    assert config["data"]["redis.conf"] == (DOCKER / "redis/redis.conf").read_text()


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_a_server_takes_the_configuration(server: str, request: pytest.FixtureRequest, short_path: Path) -> None:
    running: RedisServer = request.getfixturevalue(server)
    binary, socket, users = running.binary, short_path / "redis.sock", short_path / "users.acl"
    users.write_text(acl_file("paddler", ["default"], {Role.ADMIN: "secret"}))
    text, config = (DOCKER / "redis/redis.conf").read_text(), short_path / "redis.conf"
    here = {"\ndir /data\n": f"\ndir {short_path}\n", "\naclfile /run/secrets/redis_users\n": f"\naclfile {users}\n"}
    for there, instead in (here | {"\nport 6379\n": "\nport 0\n"}).items():
        assert there in text
        text = text.replace(there, instead)
    config.write_text(f"{text}unixsocket {socket}\n")
    with subprocess.Popen([binary, str(config)], stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(unix_socket_path=str(socket), username="paddler-admin", password="secret") as client:
                _wait(client)
                said: Any = client.config_get("*")
                users_known: Any = client.acl_users()
            with redis.Redis(unix_socket_path=str(socket)) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
        finally:
            process.terminate()
    assert (said["maxmemory-policy"], said["appendonly"], said["appendfsync"]) == ("noeviction", "yes", "everysec")
    assert {"paddler-agent-default", "paddler-balancer", "paddler-worker", "paddler-operator"} <= set(users_known)


def _wait(client: redis.Redis) -> None:
    for _ in range(300):
        try:
            client.ping()
        except (redis.ConnectionError, FileNotFoundError):
            time.sleep(0.05)
        else:
            return
    pytest.fail("the server does not answer")
