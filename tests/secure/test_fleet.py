"""The whole fleet as processes, each its own ACL user of a Redis that speaks TLS, its HTTP behind a certificate."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from batch_harness import chat_line, counts, submit, until_ended
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from secure_servers import Certificates, TlsRedis
from story_harness import SCRIPTED, Command, Told

from paddler.store.acl import Role, acl_user, user_name
from paddler.testing.leaks import leaked_keys
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240), pytest.mark.xdist_group("secure fleet")]

STATE = "/api/v1/balancer_desired_state"
ANYWHERE = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")


class SecureFleet:
    """Starts commands as the ACL users of their roles."""

    def __init__(self, server: TlsRedis, files: Certificates, folder: Path, prefix: str) -> None:
        self.server, self.files, self.prefix = server, files, prefix
        self._folder = folder
        self._started: list[Command] = []
        self.balancer: Command | None = None
        self.admin = redis.Redis.from_url(server.url)
        for role, pool in ((Role.AGENT, "default"), *((one, "*") for one in Role if one is not Role.AGENT)):
            line = acl_user(role, prefix, pool, f"secret of {role}")
            self.admin.execute_command("ACL", "SETUSER", *line.split()[1:])
            (folder / role).write_text(f"secret of {role}")
        self.admin.execute_command("ACL", "LOG", "RESET")

    def access(self, role: Role) -> tuple[str, ...]:
        url = ("--redis-url", f"rediss://localhost:{self.server.port}/0", "--redis-prefix", self.prefix)
        login = ("--redis-username", user_name(role, "default"), "--redis-password-file", str(self._folder / role))
        own = ("--redis-tls-cert", str(self.files.client), "--redis-tls-key", str(self.files.client_key))
        return (*url, *login, *own, "--redis-tls-ca", str(self.files.ca))

    def start(self, role: Role, *flags: str) -> Command:
        command = Command(self._folder / f"{len(self._started)}.log", role, *self.access(role), *flags)
        self._started.append(command)
        return command

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "paddler", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def denied(self) -> list[str]:
        """What Redis has refused, to whom."""
        entries: list[Any] = self.admin.execute_command("ACL", "LOG")
        rows = [
            entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries
        ]
        return [" ".join(bytes(row[field]).decode() for field in (b"username", b"reason", b"object")) for row in rows]

    def log(self) -> str:
        return "".join(one.text for one in self._started)

    def close(self) -> None:
        for command in self._started:
            if command.is_running:
                command.process.send_signal(signal.SIGTERM)
        for command in self._started:
            command.process.wait(20)
        for role in Role:
            self.admin.execute_command("ACL", "DELUSER", user_name(role, "default"))
        self.admin.close()


@pytest.fixture
def fleet(tls_redis: TlsRedis, certificates: Certificates, tmp_path: Path, prefix: str) -> Iterator[SecureFleet]:
    fleet = SecureFleet(tls_redis, certificates, tmp_path, prefix)
    try:
        yield fleet
    finally:
        fleet.close()
    assert leaked_keys(tls_redis.url, prefix) == []


@pytest.fixture
async def client(fleet: SecureFleet) -> AsyncIterator[AsyncOpenAI]:
    """For a balancer with a certificate; a worker runs as well."""
    flags = ("--tls-cert", str(fleet.files.cert), "--tls-key", str(fleet.files.key))
    reports = ("--statsd-addr", "127.0.0.1:9", "--statsd-reporting-interval", "200")
    balancer = fleet.balancer = fleet.start(
        Role.BALANCER, *ANYWHERE, *flags, *reports, "--buffered-request-timeout", "60000"
    )
    fleet.start(Role.WORKER, "--lease", "1000")
    told = await balancer.logged("listening", service="inference")
    port = told["address"].rpartition(":")[2]
    context = ssl.create_default_context(cafile=fleet.files.ca)
    async with (
        DefaultAsyncHttpxClient(verify=context, timeout=60, trust_env=False) as http,
        AsyncOpenAI(base_url=f"https://localhost:{port}/v1", api_key="none", max_retries=0, http_client=http) as client,
    ):
        yield client


async def test_nobody_asks_redis_for_more_than_it_may(fleet: SecureFleet, client: AsyncOpenAI) -> None:
    """Streams, embeddings, a stored response, a batch, a cancelled request, an agent that dies and one that leaves."""
    first = fleet.start(Role.AGENT, *SCRIPTED, "--name", "one", "--slots", "2", "--lease", "1000")
    await first.logged("registered")
    assert (await Told().ask(client, "ten words: [[10]]")).finish_reasons
    embedded = await client.embeddings.create(model="default", input=["one", "two"])
    assert len(embedded.data) == 2

    stored = await client.responses.create(model="default", input="hello")
    again = await client.responses.create(model="default", input="more", previous_response_id=stored.id)
    assert (await client.responses.retrieve(again.id)).status == "completed"
    for one in (stored, again):
        await client.responses.delete(one.id)

    waiting = asyncio.create_task(Told().ask(client, "many words", max_tokens=400))
    first.kill()
    second = fleet.start(
        Role.AGENT, *SCRIPTED, "--name", "two", "--slots", "2", "--lease", "1000", "--scripted-step", "2"
    )
    assert (await waiting).finish_reasons
    given_up = asyncio.create_task(Told().ask(client, "many words", max_tokens=4000))
    await asyncio.sleep(0)
    made = await submit(client, [chat_line(str(n), f"Say {n}.", max_tokens=4) for n in range(6)])
    given_up.cancel()
    batch = await until_ended(client, made, timeout_s=90)
    assert (batch.status, counts(batch)) == ("completed", (6, 6, 0))

    operator = fleet.access(Role.OPERATOR)
    shown = await asyncio.to_thread(fleet.run, "queue", "--json", *operator)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["pools"][0]["lanes"][0]["name"] == "two"
    doctor = await asyncio.to_thread(fleet.run, "doctor", "--json", *operator)
    findings = {one["check"]: one for one in json.loads(doctor.stdout)["findings"]}
    assert findings["redis encryption"]["level"] == "ok"
    assert findings["redis user"]["said"] == "paddler-operator"
    assert findings["redis rights"]["level"] == "ok", findings["redis rights"]
    assert "1 agent, 1 balancer, 1 worker" in findings["fleet"]["said"].replace("2 agents", "1 agent")

    second.process.send_signal(signal.SIGTERM)
    second.process.wait(20)
    assert fleet.denied() == []
    log = fleet.log()
    assert "secret of" not in log
    assert "no permissions" not in log.lower()


async def test_nor_do_operators_keys_and_changes_of_models(
    fleet: SecureFleet, client: AsyncOpenAI, tmp_path: Path
) -> None:
    """A model that is wanted and changed, agents that are asked, drained and removed, keys with limits, usage, a batch
    of a tenant; by HTTP and by the commands. Nor does a log have a key."""

    async def paddler(role: Role, *arguments: str) -> str:
        done = await asyncio.to_thread(fleet.run, *arguments, *fleet.access(role))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    ops = await paddler(Role.BALANCER, "keys", "create", "ops", "--scope", "management")
    assert fleet.balancer is not None
    port = (await fleet.balancer.logged("listening", service="management"))["address"].rpartition(":")[2]
    context = ssl.create_default_context(cafile=fleet.files.ca)
    address = f"https://localhost:{port}"
    async with httpx.AsyncClient(
        base_url=address, verify=context, timeout=60, trust_env=False, headers={"authorization": f"Bearer {ops}"}
    ) as http:

        async def ok(method: str, path: str, body: Any = None, **headers: str) -> Any:
            answer = await http.request(method, path, json=body, headers=headers)
            assert answer.is_success, f"{method} {path}: {answer.text}"
            return answer.json() if answer.headers.get("content-type") == "application/json" else answer.text

        limits = {"requests_per_minute": 1000, "tokens_per_minute": 10**6, "max_in_flight": 9, "daily_tokens": 10**6}
        alice = (await ok("POST", "/api/v1/keys", {"name": "alice", "limits": limits}))["secret"]
        for name in ("one", "two"):
            fleet.start(Role.AGENT, *SCRIPTED, "--scripted-follow", "--name", name, "--slots", "2")

        async def serves(model: Path) -> list[dict[str, Any]] | None:
            agents = (await ok("GET", "/api/v1/agents"))["agents"]
            are_ready = [one["model_path"] == str(model) and one["slots_total"] == 2 for one in agents]
            return agents if are_ready == [True, True] else None

        async def want(model: Path) -> list[dict[str, Any]]:
            model.write_bytes(b"GGUF")
            patch = {"model": {"LocalToAgent": str(model)}}
            await ok("PATCH", STATE, patch, **{"content-type": "application/merge-patch+json"})
            return await wait_until(lambda: serves(model), timeout_s=60, what="both serve the model")

        await want(tmp_path / "first.gguf")
        model = tmp_path / "second.gguf"
        agents = await want(model)
        first, second = sorted(agents, key=lambda one: one["name"])

        own = client.with_options(api_key=alice)
        assert (await Told().ask(own, "four words: [[4]]")).finish_reasons
        batch = await until_ended(own, await submit(own, [chat_line("1", "Say it.", max_tokens=4)]), timeout_s=90)
        assert counts(batch) == (1, 1, 0)

        await ok("POST", f"/api/v1/agent/{first['id']}/drain")
        assert (await Told().ask(own, "four words: [[4]]")).finish_reasons
        await ok("POST", f"/api/v1/agent/{first['id']}/undrain")
        await ok("GET", f"/api/v1/agent/{first['id']}/model_metadata")
        await ok("DELETE", f"/api/v1/agent/{second['id']}")
        for path in (
            *("agents", "buffered_requests", "balancer_applicable_state", "history", "history/1", "requests", "pools"),
            *("autoscale", "dead_letters", "keys"),
        ):
            await ok("GET", f"/api/v1/{path}")
        assert "paddler_redis_up 1" in await ok("GET", "/metrics")
        for path in ("/health", "/ready"):
            await ok("GET", path)
        (row,) = (await ok("GET", "/api/v1/usage?group_by=tenant"))["usage"]
        assert (row["tenant"], row["requests"]) == ("alice", 3)

    for command in ("agents", "pools", "requests"):
        await paddler(Role.OPERATOR, command)
    assert "version 2" in await paddler(Role.OPERATOR, "model", "show")
    assert "alice" in await paddler(Role.BALANCER, "usage")
    assert fleet.denied() == []
    assert fleet.admin.xlen(f"{fleet.prefix}:{{default}}:used") == 0, "it was accounted"
    log = fleet.log()
    for secret in (ops, alice, "secret of"):
        assert secret.split("-", 2)[-1] not in log


async def test_an_agent_before_anything_else_says_what_it_waits_for(fleet: SecureFleet) -> None:
    """It may not load functions: what it loaded would run with the rights of a balancer."""
    fleet.admin.execute_command("FUNCTION", "FLUSH")
    agent = fleet.start(Role.AGENT, *SCRIPTED, "--slots", "1")
    await wait_until(lambda: "start a balancer or a worker of this version first" in agent.text, timeout_s=60)
    fleet.start(Role.WORKER, "--lease", "1000")
    await agent.logged("registered")
    assert set(fleet.denied()) == {"paddler-agent-default command function|load"}


async def test_nor_does_an_autoscaler(fleet: SecureFleet, client: AsyncOpenAI) -> None:
    """It sees that a request waits, starts an agent, drains it and lets it end; the agent is a user of its own."""
    agents = ("--", *SCRIPTED, *fleet.access(Role.AGENT)[4:])
    scaler = fleet.start(Role.AUTOSCALE, "--max", "1", "--slots", "2", "--cooldown", "200", *agents)
    await scaler.logged("acts for the pool")
    assert (await Told().ask(client, "ten words: [[10]]")).finish_reasons
    await scaler.logged("stopped")
    operator = fleet.access(Role.OPERATOR)
    shown = await asyncio.to_thread(fleet.run, "autoscale", "--status", "--json", *operator)
    assert json.loads(shown.stdout)["is_acting"], shown.stderr
    scaler.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(scaler.process.wait, 20) == 0
    assert fleet.denied() == []
    assert "no permissions" not in fleet.log().lower()
