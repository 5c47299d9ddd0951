"""Into Redis by TLS, as an ACL user: by redis-py's client, by pipes, by blocking reads and by subscriptions alike."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
import trustme
from click.testing import CliRunner
from secure_servers import Certificates, TlsRedis

from api.serve import command as balancer
from paddler.keys_cli.command import command as keys
from paddler.queue_cli.command import command as queue
from paddler.store.client import TROUBLE, Store, connect
from paddler.store.location import with_access
from paddler.testing.leaks import leaked_keys

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("secure access")]


def tls_url(server: TlsRedis, files: Certificates, host: str = "localhost") -> str:
    return with_access(
        f"rediss://{host}:{server.port}/0", tls_ca=files.ca, tls_cert=files.client, tls_key=files.client_key
    )


async def use_everything(store: Store) -> None:
    """Each way in which a process talks to Redis."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    subscribed = asyncio.Event()
    listening = asyncio.create_task(store.listen("c", on_subscribed=subscribed.set, on_message=heard.put_nowait))
    blocking = store.blocking(100)
    try:
        assert await store.redis.ping() is True
        assert await store.pipe.call("PING") == b"PONG"
        await store.pool("default").follow("someone", lease_ms=1000)  # a function, which is loaded first
        assert await blocking.call("BLPOP", f"{store.prefix}:nothing", 0.01) is None
        await asyncio.wait_for(subscribed.wait(), 20)
        await store.pipe.call("PUBLISH", "c", "hello")
        assert await asyncio.wait_for(heard.get(), 20) == b"hello"
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await blocking.close()


async def test_tls_with_a_certificate_of_ones_own(tls_redis: TlsRedis, certificates: Certificates, prefix: str) -> None:
    store = connect(tls_url(tls_redis, certificates), prefix)
    await use_everything(store)
    await store.close()
    assert leaked_keys(tls_redis.url, prefix) == []


async def test_whom_is_not_trusted(tls_redis: TlsRedis, certificates: Certificates, tmp_path: Path) -> None:
    """Another authority, another host name, no certificate of our own: none of them gets anywhere."""
    other = tmp_path / "other"
    trustme.CA().cert_pem.write_to_path(other)
    good = tls_url(tls_redis, certificates)
    wrong = {
        good.replace(str(certificates.ca), str(other)): "certificate verify failed",
        tls_url(tls_redis, certificates, "127.0.0.1"): "IP address mismatch|certificate is not valid for",
        f"rediss://localhost:{tls_redis.port}/0?ssl_ca_certs={certificates.ca}": ".",
    }
    for url, complaint in wrong.items():
        for pipe_only in (True, False):
            store = connect(url)
            with pytest.raises(TROUBLE, match=complaint):
                await (store.pipe.call("PING") if pipe_only else store.redis.ping())
            await store.close()
    unchecked = connect(f"{tls_url(tls_redis, certificates, '127.0.0.1')}&ssl_check_hostname=no")
    assert await unchecked.redis.ping() is True
    await unchecked.close()


async def test_an_acl_user_whose_password_changes(tls_redis: TlsRedis, tmp_path: Path, prefix: str) -> None:
    """The file is read for each connection: a new password needs no restart."""
    admin = redis.Redis.from_url(tls_redis.url)
    admin.execute_command("ACL", "SETUSER", "ann", "on", ">first", "~*", "&*", "+@all")
    password = tmp_path / "password"
    password.write_text("first\n")
    store = connect(with_access(tls_redis.url, username="ann", password_file=password), prefix)
    await use_everything(store)
    assert await store.pipe.call("ACL", "WHOAMI") == b"ann"

    admin.execute_command("ACL", "SETUSER", "ann", "resetpass", ">second")
    admin.execute_command("CLIENT", "KILL", "USER", "ann")
    with pytest.raises(TROUBLE, match=r"WRONGPASS|invalid username-password"):
        await store.pipe.call("PING")
    password.write_text("second\n")
    await use_everything(store)
    password.unlink()
    admin.execute_command("CLIENT", "KILL", "USER", "ann")
    with pytest.raises(TROUBLE, match=f"{password} cannot be read"):
        await store.pipe.call("PING")
    await store.close()
    admin.execute_command("ACL", "DELUSER", "ann")
    admin.close()
    assert leaked_keys(tls_redis.url, prefix) == []


def test_flags_that_cannot_be_used_are_told_at_once(certificates: Certificates, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("")
    for flags, complaint in (
        (["--redis-tls-ca", str(tmp_path / "gone")], "rediss://"),
        (["--redis-url", "rediss://x", "--redis-tls-ca", str(tmp_path / "gone")], "No such file"),
        (["--redis-url", "rediss://x", "--redis-tls-ca", str(empty)], "no certificate in PEM form"),
        (
            ["--redis-url", "rediss://x", *("--redis-tls-cert", str(certificates.client))],
            "no private key in PEM form in it",
        ),
        (["--redis-password-file", str(empty)], "the password alone, on one line"),
        (["--redis-url", "redis://ann:secret@x/?password=secret"], "unknown parameter"),
    ):
        for command in (balancer, queue):
            result = CliRunner().invoke(command, flags)
            assert result.exit_code == 2, result.output
            said = " ".join(result.output.replace("│", " ").split())
            assert complaint in said
            assert "secret" not in said.replace("--redis-url", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--redis-username", "a", "list", "--redis-url", "redis://b@127.0.0.1:1/0"),
        ("--redis-url", "redis://b@127.0.0.1:1/0", "list", "--redis-username", "a"),
    ],
)
def test_how_to_get_in_may_be_said_before_and_behind_a_subcommand(arguments: tuple[str, ...]) -> None:
    """Neither forgets what the other has said."""
    refused = CliRunner().invoke(keys, arguments)
    assert refused.exit_code == 2
    assert "the URL has a user already" in refused.output


def test_a_variable_says_it_for_the_subcommand_too() -> None:
    url = ("--redis-url", "redis://b@127.0.0.1:1/0")
    refused = CliRunner().invoke(keys, ("list", *url), env={"PADDLER_REDIS_USERNAME": "a"})
    assert "the URL has a user already" in refused.output
