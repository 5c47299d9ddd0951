"""`paddler probe` says the truth of each role: alive, gone, not ready, behind TLS."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from container_files import ROOT
from secure_servers import Certificates, make_certificates
from story_harness import LEASE_MS, SCRIPTED, Command

from paddler.cli import cli
from paddler.store.client import Store
from paddler.store.keys import worker_key
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

Probe = Callable[..., Awaitable[Result]]
ANYWHERE = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")


@pytest.fixture
def probe(store: Store) -> Probe:
    async def run(*arguments: str) -> Result:
        environment = {"PADDLER_REDIS_URL": store.url, "PADDLER_REDIS_PREFIX": store.prefix, "COLUMNS": "200"}
        result = await asyncio.to_thread(CliRunner().invoke, cli, ["probe", *arguments], env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


class Starts:
    def __init__(self, store: Store, folder: Path) -> None:
        self._server = ("--redis-url", store.url, "--redis-prefix", store.prefix)
        self._folder = folder
        self.started: list[Command] = []

    def __call__(self, *arguments: str) -> Command:
        self.started.append(Command(self._folder / f"{len(self.started)}.log", *arguments, *self._server))
        return self.started[-1]


@pytest.fixture
def start(store: Store, tmp_path: Path) -> Iterator[Starts]:
    """Processes of the store's fleet."""
    starts = Starts(store, tmp_path)
    yield starts
    for one in starts.started:
        if one.is_running:
            one.process.send_signal(signal.SIGCONT)
            one.process.terminate()
            one.process.wait(20)


async def test_an_agent(probe: Probe, start: Starts) -> None:
    gone = await probe("agent", "--name", "a-1")
    assert (gone.exit_code, "there is no agent a-1 in pool default" in gone.stderr) == (1, True)
    agent = start("agent", "--name", "a-1", "--slots", "2", "--lease", str(LEASE_MS), *SCRIPTED)
    await agent.logged("registered")
    assert (await probe("agent", "--name", "a-1")).exit_code == 0
    assert (await probe("agent", "--name", "a-1", "--ready")).exit_code == 0
    assert (await probe("agent", "--name", "a-2")).exit_code == 1
    assert (await probe("agent", "--name", "a-1", "--pool", "other")).exit_code == 1
    agent.process.send_signal(signal.SIGSTOP)

    async def is_missed() -> bool:
        return (await probe("agent", "--name", "a-1")).exit_code == 1

    await wait_until(is_missed, timeout_s=30, poll_s=0.2, what="the lease of an agent that stands still is over")


async def test_an_agent_without_a_model_lives_and_is_not_ready(probe: Probe, start: Starts) -> None:
    agent = start("agent", "--name", "a-1", "--slots", "2", *SCRIPTED, "--scripted-follow")

    async def lives() -> bool:
        return (await probe("agent", "--name", "a-1")).exit_code == 0

    await wait_until(lives, timeout_s=60, poll_s=0.2, what="it has a lease")
    assert agent.is_running
    not_ready = await probe("agent", "--name", "a-1", "--ready")
    assert (not_ready.exit_code, "is waiting, not ready" in not_ready.stderr) == (1, True)


async def test_a_worker(probe: Probe, store: Store) -> None:
    none = await probe("worker")
    assert (none.exit_code, "no worker" in none.stderr) == (1, True)
    await store.redis.set(worker_key(store.prefix), 1, px=60_000)
    assert (await probe("worker")).exit_code == 0
    await store.redis.delete(worker_key(store.prefix))


async def test_a_redis_that_is_away(probe: Probe) -> None:
    away = await probe("worker", "--redis-url", "redis://127.0.0.1:1/0")
    assert (away.exit_code, "cannot be used" in away.stderr) == (1, True)


async def test_a_balancer(probe: Probe, start: Starts) -> None:
    balancer = start("balancer", *ANYWHERE)
    address = str((await balancer.logged("listening", service="management"))["address"])
    assert (await probe("balancer", "--management-addr", address)).exit_code == 0
    everywhere = f"0.0.0.0:{address.rpartition(':')[2]}"
    assert (await probe("balancer", "--management-addr", everywhere, "--ready")).exit_code == 0
    tls = await probe("balancer", "--management-addr", address, "--tls-cert", "none.pem")
    assert (tls.exit_code, "TLS to" in tls.stderr) == (1, True)
    balancer.kill()
    gone = await probe("balancer", "--management-addr", address)
    assert (gone.exit_code, "does not answer" in gone.stderr) == (1, True)


async def test_a_balancer_without_redis_lives_and_is_not_ready(probe: Probe, tmp_path: Path) -> None:
    balancer = Command(tmp_path / "alone.log", "balancer", *ANYWHERE, "--redis-url", "redis://127.0.0.1:1/0")
    address = str((await balancer.logged("listening", service="management"))["address"])
    try:
        assert (await probe("balancer", "--management-addr", address)).exit_code == 0
        not_ready = await probe("balancer", "--management-addr", address, "--ready")
        assert (not_ready.exit_code, "answers 503: Redis does not answer." in not_ready.stderr) == (1, True)
    finally:
        balancer.kill()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("wants_client", [False, True])
async def test_a_balancer_behind_tls(probe: Probe, start: Starts, files: Certificates, wants_client: bool) -> None:
    tls = ["--tls-cert", str(files.cert), "--tls-key", str(files.key)]
    tls += ["--tls-client-ca", str(files.ca)] if wants_client else []
    balancer = start("balancer", *ANYWHERE, *tls)
    address = str((await balancer.logged("listening", service="management"))["address"])
    assert (await probe("balancer", "--management-addr", address, *tls)).exit_code == 0
    plain = await probe("balancer", "--management-addr", address)
    assert plain.exit_code == 1, "it is not taken for one that speaks HTTP"


def test_it_is_in_the_documents() -> None:
    assert "paddler probe" in (ROOT / "docs/containers.md").read_text()
