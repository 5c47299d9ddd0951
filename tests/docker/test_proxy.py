"""docker/haproxy by HAProxy itself, and in front of two real balancers: streams come as they are made, one balancer is
killed and the client goes on at the other."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from container_files import DOCKER, run
from lacking import lacks
from native_harness import raw_socket
from secure_servers import free_port
from story_harness import SCRIPTED, Command

from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

CONFIG = DOCKER / "haproxy/haproxy.cfg"
PORTS = {"inference": 8061, "openai": 8070, "management": 8060, "panel": 8062}
ADDRESSES = {
    "inference": "--inference-addr",
    "openai": "--compat-openai-addr",
    "management": "--management-addr",
    "panel": "--web-admin-panel-addr",
}
NUM_TOKENS = 150
STEP_MS = "30"


@pytest.fixture(scope="session")
def haproxy() -> str:
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if found is None:
        lacks("haproxy is not installed: apt-get install haproxy")
    return found


def test_haproxy_takes_the_file(haproxy: str) -> None:
    said = run(haproxy, "-c", "-f", CONFIG)
    assert "WARNING" not in said.stdout + said.stderr


class Fleet:
    """Two balancers, an agent that says a token every 30 ms, and HAProxy with the shipped file, but for where they are
    and for a header that says which balancer answered."""

    def __init__(self, store: Store, folder: Path, binary: str) -> None:
        self._folder = folder
        server = ("--redis-url", store.url, "--redis-prefix", store.prefix)
        self.at = [{name: free_port() for name in PORTS} for _ in range(2)]
        self.balancers = [
            Command(folder / f"balancer-{number}.log", "balancer", *self._flags(number), *server) for number in range(2)
        ]
        engine = ("--slots", "4", "--grace", "0", *SCRIPTED, "--scripted-step", STEP_MS)
        self.agent = Command(folder / "agent.log", "agent", *engine, *server)
        self.ports = {name: free_port() for name in PORTS}
        config = folder / "haproxy.cfg"
        config.write_text(self._here(CONFIG.read_text()))
        with (folder / "haproxy.log").open("wb") as log:
            self.proxy = subprocess.Popen([binary, "-db", "-f", str(config)], stdout=log, stderr=log)

    def _flags(self, number: int) -> list[str]:
        addresses = [(flag, f"127.0.0.1:{self.at[number][name]}") for name, flag in ADDRESSES.items()]
        # As in compose.yaml: the proxy's checks call them by this name.
        return [part for pair in (*addresses, ("--allowed-host", "balancer")) for part in pair]

    def _here(self, text: str) -> str:
        for name, port in PORTS.items():
            text, binds = re.subn(rf"bind :{port}\n", f"bind 127.0.0.1:{self.ports[name]}\n", text)
            servers = "\n    ".join(
                f"server balancer-{number} 127.0.0.1:{self.at[number][name]} check" for number in (0, 1)
            )
            told = f"http-response set-header x-served-by %s\n    {servers}"
            text, templates = re.subn(rf"server-template balancer- 16 balancer:{port} check .*", told, text)
            assert (binds, templates) == (1, 1)
        return text

    def http(self, name: str = "openai") -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.ports[name]}", timeout=60, trust_env=False)

    async def ready(self) -> None:
        await self.agent.logged("registered")
        for balancer in self.balancers:
            await balancer.logged("listening", service="inference")

        for name in PORTS:
            await wait_until(lambda name=name: self._has_both(name), timeout_s=60, poll_s=0.1, what=f"both do {name}")

    async def _has_both(self, name: str) -> bool:
        async with self.http(name) as http:
            answers = [await http.get("/ready") for _ in range(4)]
        return {one.headers.get("x-served-by") for one in answers} == {"balancer-0", "balancer-1"}

    def close(self) -> None:
        for process in (self.proxy, self.agent.process, *(one.process for one in self.balancers)):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (self.proxy, self.agent.process, *(one.process for one in self.balancers)):
            process.wait(30)


@pytest.fixture
async def fleet(store: Store, tmp_path: Path, haproxy: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(store, tmp_path, haproxy)
    try:
        await fleet.ready()
        yield fleet
    finally:
        fleet.close()


class Heard:
    """The events of a stream: their ids, and the words."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.text = ""
        self.is_done = False

    def take(self, line: str) -> None:
        if line.startswith("id: "):
            self.ids.append(line.removeprefix("id: "))
        elif line == "data: [DONE]":
            self.is_done = True
        elif found := re.search(r'"content":"([^"]+)"', line):
            self.text += found[1]


BODY = {
    "model": "default",
    "messages": [{"role": "user", "content": "Tell me something long."}],
    "max_tokens": NUM_TOKENS,
    "stream": True,
}


async def test_a_stream_is_not_held_back_and_outlives_its_balancer(fleet: Fleet, store: Store) -> None:
    demand = store.pool("default").keys.demand()
    heard, number = Heard(), -1
    async with fleet.http() as http:
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012  # the stream breaks off in its midst
            async with http.stream("POST", "/v1/chat/completions", json=BODY) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    heard.take(line)
                    if len(heard.ids) == 3:
                        assert await store.redis.xlen(demand) == 1, "what has come came before the end"
                        number = int(answer.headers["x-served-by"].removeprefix("balancer-"))
                        fleet.balancers[number].kill()
        assert not heard.is_done
        before = heard.text
        # At once, before a check has found it: a connection that cannot be made is made to another.
        request_id = heard.ids[-1].rpartition(":")[0]
        headers = {"Last-Event-ID": heard.ids[-1]}
        async with http.stream("GET", f"/v1/requests/{request_id}/stream", headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["x-served-by"] == f"balancer-{1 - number}"
            async for line in answer.aiter_lines():
                heard.take(line)
        whole = Heard()
        async with http.stream("GET", f"/v1/requests/{request_id}/stream") as answer:
            async for line in answer.aiter_lines():
                whole.take(line)
    assert heard.is_done
    assert before
    assert heard.text == whole.text, "no word twice, none missing"
    assert len(set(heard.ids)) == len(heard.ids)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_sockets_pass_and_nothing_new_goes_to_a_balancer_that_stops(fleet: Fleet) -> None:
    async with raw_socket(f"http://127.0.0.1:{fleet.ports['inference']}") as opened:
        await opened.send("nonsense")
        _, code, _ = await opened.error()
        assert code == 400
    fleet.balancers[0].process.send_signal(signal.SIGTERM)
    await wait_until(lambda: not fleet.balancers[0].is_running, timeout_s=30, poll_s=0.05, what="it has stopped")
    assert not _is_open(fleet.at[0]["openai"])
    async with fleet.http() as http:
        answers = [
            await http.post("/v1/chat/completions", json=BODY | {"stream": False, "max_tokens": 2}) for _ in range(4)
        ]
    assert [(one.status_code, one.headers["x-served-by"]) for one in answers] == [(200, "balancer-1")] * 4
