"""`paddler doctor` on setups that are broken, each in one way: it finds that, says what to do, and ends with 1."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from balancer_process import balancer_processes
from click.testing import CliRunner
from queue_calls import leave
from secure_servers import Certificates, Pair, free_port
from story_harness import SCRIPTED, Command

from paddler import __version__
from paddler.cli import cli
from paddler.clock import SystemClock
from paddler.doctor import fleet_checks, machine_checks, redis_checks
from paddler.doctor.command import command
from paddler.doctor.finding import Finding, Level
from paddler.doctor.model_check import ModelQuestion, check_model
from paddler.issues import encode_issues, issue_of
from paddler.presence import Presence, Process, processes
from paddler.settings import Address
from paddler.store.acl import Role, acl_user
from paddler.store.client import Store, connect
from paddler.store.keys import worker_key
from paddler.store.location import with_access
from paddler.store.process_keys import process_key
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from workers.agent.check_model import cache_bytes, judge_memory

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.xdist_group("secure doctor")]


class Told:
    def __init__(self, exit_code: int, report: dict[str, Any]) -> None:
        self.exit_code = exit_code
        self.is_well: bool = report["ok"]
        self.findings: list[dict[str, str]] = report["findings"]

    def of(self, check: str) -> dict[str, str]:
        return next(one for one in self.findings if one["check"] == check)


def doctor(url: str, *flags: str) -> Told:
    """With the services on ports that are free."""
    names = ("inference", "management", "compat-openai", "web-admin-panel")
    ports = [part for name in names for part in (f"--{name}-addr", f"127.0.0.1:{free_port()}")]
    result = CliRunner().invoke(command, ["--json", "--redis-url", url, *ports, *flags])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Told(result.exit_code, json.loads(result.output))


def test_all_is_well(valkey: RedisServer, prefix: str) -> None:
    told = doctor(valkey.url, "--redis-prefix", prefix)
    assert told.exit_code == 0, told.findings
    assert told.is_well
    assert [one["check"] for one in told.findings if one["level"] == "warn"] == ["fleet"]
    assert all(bool(one.get("remedy")) == (one["level"] != "ok") for one in told.findings)
    for check in ("redis", "redis version", "redis role", "redis eviction", "redis persistence", "redis memory"):
        assert told.of(check)["level"] == "ok"
    assert "MiB" in told.of("memory")["said"]
    assert told.of("--inference-addr")["said"].endswith("is free")


def test_for_people(valkey: RedisServer, prefix: str) -> None:
    result = CliRunner().invoke(command, ["--redis-url", valkey.url, "--redis-prefix", prefix])
    assert "redis eviction" in result.output
    assert "checks: " in result.output


def test_no_redis() -> None:
    told = doctor(f"redis://ann:secret@127.0.0.1:{free_port()}/0")
    assert (told.exit_code, told.is_well) == (1, False)
    assert "Connection refused" in told.of("redis")["said"] or "Connect call failed" in told.of("redis")["said"]
    assert "--redis-url" in told.of("redis")["remedy"]
    assert "secret" not in str(told.findings)


@pytest.fixture
def broken(valkey: RedisServer) -> Iterator[RedisServer]:
    """Evicts, keeps nothing, and is nearly full."""
    server = RedisServer(valkey.binary)
    server.arguments = {"maxmemory-policy": "allkeys-lru", "appendonly": "no"}
    server.start()
    client = redis.Redis.from_url(server.url)
    used = client.info("memory")["used_memory"]  # pyright: ignore[reportIndexIssue]
    client.config_set("maxmemory", int(used / 0.95))
    client.close()
    yield server
    server.close()


def test_a_redis_that_is_not_fit(broken: RedisServer) -> None:
    told = doctor(broken.url)
    assert told.exit_code == 1
    assert told.of("redis eviction")["level"] == "fail"
    assert "noeviction" in told.of("redis eviction")["remedy"]
    assert told.of("redis persistence")["level"] == "warn"
    assert told.of("redis memory")["level"] == "fail"
    assert "(maxmemory)" in told.of("redis memory")["said"]


def test_a_replica(valkey: RedisServer, tmp_path: Path) -> None:
    pair = Pair(valkey.binary, tmp_path)
    try:
        told = doctor(f"redis://127.0.0.1:{pair.ports[1]}/0")
        assert told.of("redis role")["level"] == "fail"
        assert "redis+sentinel://" in told.of("redis role")["remedy"]
        told = doctor(pair.url)
        assert told.of("redis role")["level"] == "ok"
        told = doctor(f"redis://127.0.0.1:{pair.ports[0]}/0")
        assert told.of("redis user")["level"] == "warn"
        assert "without a password" in told.of("redis user")["said"]
    finally:
        pair.close()


def test_an_acl_user_that_lacks_something(valkey: RedisServer, prefix: str, tmp_path: Path) -> None:
    admin = redis.Redis.from_url(valkey.url)
    password = tmp_path / "password"
    password.write_text("secret")
    url = with_access(valkey.url, username="paddler-worker", password_file=password)
    line = acl_user(Role.WORKER, prefix, password="secret").split()[1:]
    try:
        admin.execute_command("ACL", "SETUSER", *line)
        told = doctor(url, "--redis-prefix", prefix)
        assert told.of("redis rights")["level"] == "ok", told.of("redis rights")
        told = doctor(url, "--redis-prefix", prefix, "--role", "balancer")
        assert "lacks what a balancer needs: " in told.of("redis rights")["said"]
        told = doctor(url, "--redis-prefix", "other")
        assert told.exit_code == 1
        assert "reading other:{x}" in told.of("redis rights")["said"]
        assert "paddler acl" in told.of("redis rights")["remedy"]
        admin.execute_command("ACL", "SETUSER", "paddler-worker", "-xadd", "-info")
        told = doctor(url, "--redis-prefix", prefix)
        assert "lacks what a worker needs: +info, +xadd" in told.of("redis rights")["said"]
        assert told.of("redis settings")["level"] == "warn"
        admin.execute_command("ACL", "SETUSER", "paddler-worker", "resetpass")
        told = doctor(url, "--redis-prefix", prefix)
        assert told.exit_code == 1
        assert "--redis-password-file" in told.of("redis")["remedy"]
    finally:
        admin.execute_command("ACL", "DELUSER", "paddler-worker")
        admin.close()


@pytest.fixture
async def said(store: Store) -> Store:
    """A fleet of another version whose clock is wrong, and no worker."""
    for number, (kind, version, clock_ms) in enumerate((("balancer", "0.0.1", 60_000), ("agent", __version__, -2000))):
        process = Process(kind=kind, version=version, host="h", pid=number, since_s=0, clock_ms=clock_ms, name="n")
        await store.redis.set(process_key(store.prefix, str(number)), msgspec.json.encode(process), ex=60)
    return store


async def test_a_fleet_that_does_not_fit_together(said: Store) -> None:
    found = await fleet_checks.fleet(said)
    by_check = {(one.check, one.level): one.said for one in found}
    assert by_check["fleet", Level.WARN].startswith(
        f"1 agent, 1 balancer, of versions 0.0.1: balancer n on h; {__version__}: agent n on h"
    )
    assert by_check["clocks", Level.FAIL] == "the clock of balancer n on h is 60.00 s ahead of that of Redis"
    assert by_check["clocks", Level.WARN] == "the clock of agent n on h is 2.00 s behind that of Redis"
    assert ("worker", Level.FAIL) in by_check
    await said.redis.set(worker_key(said.prefix), "1", ex=10)
    assert ("worker", Level.OK) in {(one.check, one.level) for one in await fleet_checks.fleet(said)}


async def test_agents_that_do_not_serve_what_is_wanted(store: Store) -> None:
    """One that cannot at all, one that goes on with what it had, one that is not told what."""
    pool = store.pool("default")
    issue = issue_of("ModelFileDoesNotExist", "no such file", "/m.gguf", waits=True)
    issues = encode_issues((issue,))
    download = {"download_filename": "m.gguf", "download_current": 1, "download_total": 4}
    agents: dict[str, tuple[str, dict[str, Any]]] = {
        "failed": ("failed", {"issues": issues}),
        "ready": ("ready", {"issues": issues}),
        "waiting": ("waiting", {}),
        "downloading": ("waiting", download),
    }
    for name, (state, more) in agents.items():
        snapshot = {"state": state, "slots": 1, "name": name, **more}
        await pool.register(f"agent-{name}", lease_ms=60_000, model="m", seen_s=1, snapshot=snapshot)
    found = {one.said: one for one in await fleet_checks.fleet(store) if one.check == "agents"}
    assert {said: one.level for said, one in found.items()} == {
        "failed cannot serve its model: ModelFileDoesNotExist: no such file": Level.FAIL,
        "ready is ready and in trouble: no such file": Level.WARN,
        "waiting waits for a model": Level.WARN,
        "downloading downloads its model: m.gguf, 25%": Level.OK,
    }
    assert found["ready is ready and in trouble: no such file"].remedy == issue.remedy
    await leave(pool, *(f"agent-{name}" for name in agents))


async def test_an_agent_that_waits_for_a_model_is_there(store: Store, tmp_path: Path) -> None:
    """A process and an agent like any other, for doctor and for `paddler agents`, before it has ever served."""
    where = ("--redis-url", store.url, "--redis-prefix", store.prefix)
    agent = Command(
        tmp_path / "agent.log", "agent", *SCRIPTED, "--scripted-follow", "--slots", "3", "--name", "a", *where
    )
    try:
        await agent.logged("entered the pool, not ready yet")
        await wait_until(lambda: processes(store), what="it says that it is there")
        found = {one.check: one.said for one in await fleet_checks.fleet(store)}
        assert found["fleet"] == f"1 agent, all of version {__version__}"
        assert found["agents"] == "a waits for a model"
        shown = await asyncio.to_thread(CliRunner().invoke, cli, ["agents", *where], env={"COLUMNS": "80"})
        assert " waiting " in shown.output
        assert " a " in shown.output
    finally:
        agent.process.terminate()
        await asyncio.to_thread(agent.process.wait, 20)
    assert await processes(store) == []


async def test_a_process_says_that_it_is_there(store: Store) -> None:
    await Presence(store, SystemClock(), "agent", "one").run_once()
    (found,) = await processes(store)
    assert (found.kind, found.name, found.version) == ("agent", "one", __version__)
    assert abs(found.clock_ms) < 1000  # Redis runs on this machine
    assert (await redis_checks.clock_difference(store, SystemClock())).level is Level.OK


async def test_functions_that_are_not_there_yet(valkey: RedisServer) -> None:
    own = RedisServer(valkey.binary)
    own.start()
    store = connect(own.url)
    try:
        assert "is not loaded yet" in (await redis_checks.functions(store)).said
        await store.pool("default").follow("b", lease_ms=1)
        await store.pipe.call("FUNCTION", "LOAD", "#!lua name=paddler_0\nredis.register_function('x', function() end)")
        assert "is loaded; 1 of other versions" in (await redis_checks.functions(store)).said
    finally:
        await store.close()
        own.close()


def _levels(found: list[Finding]) -> list[tuple[str, Level]]:
    return [(one.check, one.level) for one in found]


@pytest.mark.parametrize(
    ("flags", "built", "level"),
    [
        ("avx2", "AVX2 = 1", None),
        ("sse2", "AVX2 = 1", Level.FAIL),
        ("avx2 avx512f avx512cd avx512vl avx512dq avx512bw", "AVX2 = 1", Level.WARN),
        ("avx2 amx_int8", "AVX2 = 1", Level.OK),
        ("avx2 amx_int8", "AVX2 = 1 | AMX_INT8 = 1", Level.WARN),
    ],
)
def test_the_build_and_the_cpu(flags: str, built: str, level: Level | None) -> None:
    found = machine_checks.cpu_build(f"flags\t: {flags}\n", (0, f"b1\nCPU : SSE3 = 1 | {built} | "))
    assert _levels(found) == [("llama.cpp", Level.OK), *([("cpu", level)] if level else [])]


def test_a_library_that_dies() -> None:
    assert _levels(machine_checks.cpu_build("", (-4, ""))) == [("llama.cpp", Level.FAIL)]


def test_threads_beyond_the_quota() -> None:
    assert machine_checks.threads(8, usable=2).level is Level.WARN
    assert machine_checks.threads(2, usable=2).level is Level.OK
    assert machine_checks.threads(None).level is Level.OK


def _machine(root: Path, limit: str, used: int, *, is_v2: bool) -> Path:
    folder = root / ("sys/fs/cgroup" if is_v2 else "sys/fs/cgroup/memory")
    folder.mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal: 9999999 kB\nMemAvailable:  4194304 kB\n")
    names = ("memory.max", "memory.current") if is_v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(limit)
    (folder / names[1]).write_text(str(used))
    (folder / "memory.stat").write_text(f"{'' if is_v2 else 'total_'}inactive_file {100 << 20}\n")
    return root


@pytest.mark.parametrize("is_v2", [True, False])
def test_memory_of_a_cgroup(tmp_path: Path, is_v2: bool) -> None:
    found, available = machine_checks.memory(_machine(tmp_path, str(1 << 30), 600 << 20, is_v2=is_v2))
    assert (found.level, available) == (Level.OK, 524 << 20)
    assert found.said == "524 MiB left of the cgroup's 1024 MiB"


def test_memory_without_a_limit_or_without_any_left(tmp_path: Path) -> None:
    found, available = machine_checks.memory(_machine(tmp_path / "a", "max", 1, is_v2=True))
    assert (found.level, available) == (Level.OK, 4 << 30)
    found, _ = machine_checks.memory(_machine(tmp_path / "b", str(1 << 30), (1 << 30) + (100 << 20), is_v2=True))
    assert found.level is Level.WARN


async def test_ports(store: Store, certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        taken = await machine_checks.service("--inference-addr", Address(*listener.getsockname()))
    assert (taken.level, "another program" in taken.said) == (Level.FAIL, True)
    elsewhere = await machine_checks.service("--inference-addr", Address("192.0.2.1", 8061))
    assert elsewhere.level is Level.FAIL
    async with balancer_processes() as start:
        tls = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
        for flags in ((), tls, (*tls, "--tls-client-ca", str(certificates.ca))):
            balancer = await start(store, *flags)
            for url in balancer.addresses.values():
                address = Address.parse(url.removeprefix("http://"))
                if len(flags) > 4:
                    other = await machine_checks.service("--any", address, certificates.client)
                    assert other.level is Level.FAIL
                found = await machine_checks.service("--any", address, certificates.cert)
                assert found.level is Level.OK, found
                scheme = "https" if flags else "http"
                wanted = "shows our certificate" if len(flags) > 4 else f"Paddler answers at {scheme}://{address}"
                assert wanted in found.said


def test_a_model(tmp_path: Path) -> None:
    def ask(path: Path, **fields: Any) -> list[Finding]:
        return check_model(ModelQuestion(path=path, **{"slots": 4, "context_size": 2048, **fields}))

    (missing,) = ask(tmp_path / "gone.gguf")
    assert (missing.level, "No such file" in missing.said) == (Level.FAIL, True)
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"<html>not found</html>")
    (refused,) = ask(garbage)
    assert (refused.level, "is no GGUF file" in refused.said) == (Level.FAIL, True)
    starter = find_starter()
    assert _levels(ask(starter, available=1 << 40)) == [("model", Level.OK), ("model memory", Level.OK)]
    assert _levels(ask(starter, available=1 << 20))[-1] == ("model memory", Level.FAIL)
    assert ("model context", Level.WARN) in _levels(ask(starter, slots=1, context_size=1 << 16))


def test_an_estimate_of_memory() -> None:
    """SmolLM2-135M: 30 layers, 3 heads of 64 for keys and values."""
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": "30",
        "llama.embedding_length": "576",
        "llama.attention.head_count": "9",
        "llama.attention.head_count_kv": "3",
    }
    assert cache_bytes(metadata, 1000) == 1000 * 30 * 3 * 64 * 2 * 2
    layers = metadata | {"llama.attention.head_count_kv": "[0, 3, 0]", "llama.attention.key_length": "128"}
    assert cache_bytes(layers, 10) == 10 * 30 * 3 * (128 + 64) * 2
    question = ModelQuestion(path=Path("m"), slots=1, context_size=10)
    assert judge_memory(1 << 30, 0, question).level is Level.OK
