"""`paddler dashboard` without a terminal, and its flags."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from balancer_process import balancer_processes
from click.testing import CliRunner
from dashboard_harness import SLOW, WatchedFleet, asking, dashboard_command
from http_harness import HandAgent, HttpBalancer, http_balancer
from secure_servers import make_certificates

from api.management.fleet_objects import PoolObject
from api.management.objects import AgentObject
from paddler.cli import cli
from paddler.dashboard.objects import Agent, Pool
from paddler.issues import encode_issues, issue_of
from paddler.store.client import Store

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def paddler(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a process of its own: this one has a balancer's log."""
    process = await asyncio.create_subprocess_exec(
        *dashboard_command(*arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"COLUMNS": "80"},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode()


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
async def balancer(store: Store) -> AsyncIterator[HttpBalancer]:
    async with http_balancer(store.url, store.prefix) as balancer:
        yield balancer


@pytest.fixture
async def agent(store: Store) -> AsyncIterator[HandAgent]:
    agent = HandAgent(store, slots=3)
    await agent.register()
    yield agent
    await agent.leave()


async def test_a_table_once(balancer: HttpBalancer, agent: HandAgent) -> None:
    issue = issue_of("ModelCannotBeLoaded", "it is no model", "/m.gguf", waits=True)
    told = {"issues": encode_issues((issue,)), "lease_ms": 60_000}
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot=told)
    code, text = await paddler("--once", "--management-addr", balancer.url("management").removeprefix("http://"))
    lines = text.splitlines()
    assert (code, lines[0]) == (0, "pool default  waiting 0  slots 0/3 busy  demand 0  NO WORKER")
    assert lines[2].split() == ["Name", "State", "Issues", "Model", "Last", "update", "Idle", "Processing"]
    row = lines[3].split()
    assert (row[:4], row[-2:]) == (["hand", "ready", "1", "none"], ["3", "0"])
    assert max(map(len, lines)) <= 80
    assert f"hand: ModelCannotBeLoaded it is no model Paddler {issue.action}" in words(text)


async def test_json_once(balancer: HttpBalancer, agent: HandAgent) -> None:
    """It has all that the management service tells."""
    code, text = await paddler("--once", "--json", "--management-addr", balancer.url("management"))
    told: dict[str, Any] = json.loads(text)
    async with balancer.http("management") as http:
        agents = (await http.get("/api/v1/agents")).json()["agents"]
        pool = (await http.get("/api/v1/pools/default")).json()
    assert (code, told["agents"], told["pool"]) == (0, agents, pool)
    assert (told["online"], told["requests_buffered"], told["worker"]) == (True, 0, False)
    assert set(AgentObject.__annotations__) == {field.encode_name for field in msgspec.structs.fields(Agent)}
    assert set(PoolObject.__struct_fields__) == set(Pool.__struct_fields__)


async def test_without_a_balancer_it_ends_with_1(balancer: HttpBalancer) -> None:
    for more in ((), ("--json",)):
        code, text = await paddler("--once", *more, "--management-addr", "127.0.0.1:1")
        assert code == 1
        assert "127.0.0.1:1 cannot be reached: Connection refused." in words(text)
    code, text = await paddler("--once", "--management-addr", balancer.url("management"), "--pool", "caht")
    assert (code, "There is no pool 'caht'; there is: default." in words(text)) == (1, True)
    code, text = await paddler("--once", "--management-addr", balancer.url("inference"))
    assert (code, "has no route" in words(text)) == (1, True), text


@pytest.mark.xdist_group("dashboard")
async def test_json_as_it_changes(fleet: WatchedFleet) -> None:
    """A line for each change, also while nobody answers."""
    process = await asyncio.create_subprocess_exec(
        *dashboard_command("--json", "--management-addr", fleet.address),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    stdout = process.stdout

    async def line(**wanted: Any) -> dict[str, Any]:
        while True:
            told = json.loads(await asyncio.wait_for(stdout.readline(), 60))
            if all(told[name] == value for name, value in wanted.items()):
                return told

    try:
        assert (await line(online=True))["agents"] == []
        await fleet.agent("teller", *SLOW)
        while not (told := await line(online=True))["agents"]:
            pass
        assert (told["agents"][0]["name"], told["agents"][0]["since_renewal_ms"]) == ("teller", None)
        async with asking(fleet, 3):
            await line(requests_buffered=1)
        fleet.kill_balancer()
        told = await line(online=False)
        assert (fleet.address in told["error"], len(told["agents"])) == (True, 1)
        await fleet.start_balancer()
        await line(online=True, error=None)
    finally:
        process.terminate()
        await process.wait()


async def test_https(store: Store, agent: HandAgent, tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    async with balancer_processes() as start:
        flags = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--tls-client-ca", str(files.ca))
        balancer = await start(store, *flags)
        address = balancer.addresses["management"].removeprefix("http://").replace("127.0.0.1", "localhost")
        where = ("--once", "--management-addr", address)
        ours = ("--tls-ca", str(files.ca), "--tls-client-cert", str(files.client))
        code, text = await paddler(*where, *ours, "--tls-client-key", str(files.client_key))
        assert (code, "hand" in text) == (0, True), text
        code, text = await paddler(*where)
        assert (code, "does it speak HTTPS?" in words(text)) == (1, True), text
        trustme.CA().cert_pem.write_to_path(tmp_path / "other")
        code, text = await paddler(*where, "--tls-ca", str(tmp_path / "other"))
        assert (code, "a certificate that is not trusted" in words(text)) == (1, True), text


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--management-addr", "8060"], "is not host:port"),
        (["--management-addr", "ftp://x"], "neither host:port nor http(s)://host:port"),
        (["--management-addr", "http://me:secret@x:1"], "neither host:port nor http(s)://host:port"),
        (["--management-addr", "http://x:1", "--tls-ca", "FILE"], "is not https://"),
        (["--tls-ca", "GONE"], "No such file"),
        (["--tls-ca", "FILE"], "no certificate in PEM form"),
        (["--tls-client-key", "FILE"], "needs --tls-client-cert"),
        (["--api-key-file", "GONE"], "No such file"),
        (["--api-key-file", "FILE"], "it has to hold one API key, alone"),
        ([], "This is no terminal; --once prints a table"),
    ],
)
def test_mistakes(flags: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("two words")
    names = {"FILE": str(tmp_path / "file"), "GONE": str(tmp_path / "gone")}
    arguments = ["dashboard", *(names.get(flag, flag) for flag in flags)]
    result = CliRunner().invoke(cli, arguments, env={"PADDLER_MANAGEMENT_ADDR": None}, prog_name="paddler")
    assert (result.exit_code, told in words(result.output)) == (2, True), result.output


def test_no_other_command_imports_textual() -> None:
    """Nor does this one, before it draws."""
    modules = sorted({entry.module for entry in entry_points(group="paddler.commands")})
    assert "paddler.dashboard.command" in modules
    code = (
        f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\nprint('textual' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
