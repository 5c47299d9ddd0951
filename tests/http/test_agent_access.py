"""Agents that know a balancer and have a key of scope `agent`: they are told where Redis is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from balancer_process import StartBalancer
from click.testing import CliRunner
from http_harness import HttpBalancer, NewBalancer
from story_harness import SCRIPTED, Command

from paddler.agent_access import PATH, AgentAccess, is_of_one_machine, told_to, without_files, without_login
from paddler.clock import SystemClock
from paddler.errors import Conflict
from paddler.jobs.overview import Overview
from paddler.store.client import Store
from paddler.tenants.keys import ApiKeys
from paddler.testing.waiting import wait_until
from workers.agent import main

pytestmark = pytest.mark.anyio

Start = Callable[..., Awaitable[Command]]


@pytest.fixture
async def start_agent(tmp_path: Path, store: Store) -> AsyncIterator[Start]:
    started: list[Command] = []

    async def start(url: str, secret: str, *flags: str) -> Command:
        key = tmp_path / f"key-{len(started)}"
        key.write_text(f"{secret}\n")
        where = ("--management-addr", url, "--management-api-key-file", str(key))
        started.append(
            Command(tmp_path / f"agent-{len(started)}.log", "agent", *SCRIPTED, "--slots", "1", *where, *flags)
        )
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
    for one in started:
        await asyncio.to_thread(one.process.wait, 20)


async def num_agents(store: Store) -> int:
    return len((await Overview(store).pool("default")).lanes)


async def test_it_is_told_to_keys_of_scope_agent_alone(balancer: HttpBalancer, store: Store) -> None:
    async with balancer.http("management") as http:
        answer = await http.get(PATH)
        assert answer.status_code == 401, "also while nobody needs a key for anything else"
        assert "--scope agent" in answer.json()["error"]["message"]
        new = await balancer.new_key("gpu-hosts", "agent")
        operator = await balancer.new_key("operator", "management", "inference")
        refused = await http.get(PATH, headers={"authorization": f"Bearer {operator.secret}"})
        assert refused.status_code == 403
        told = await http.get(PATH, headers={"authorization": f"Bearer {new.secret}"})
        assert (told.status_code, told.headers["cache-control"]) == (200, "no-store")
        assert told.json() == {"redis_url": store.url, "redis_prefix": store.prefix}
        other = await http.get("/api/v1/agents", headers={"authorization": f"Bearer {new.secret}"})
        assert other.status_code == 403, "and such a key opens nothing else"


async def test_an_operators_key_is_not_told_by_another_spelling_or_the_panel(
    new_balancer: NewBalancer, tmp_path: Path
) -> None:
    """The router takes more spellings of a path than one, and the panel has the management service's routes."""
    balancer = await new_balancer(panel=tmp_path)
    operator = await balancer.new_key("operator", "management", "inference")
    for service, path in (("management", f"{PATH}/"), ("management", PATH.replace("/v1", "//v1")), ("panel", PATH)):
        async with balancer.http(service, key=operator.secret) as http:
            answer = await http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope"), (service, path)
        assert "redis_url" not in answer.text


async def test_an_agent_waits_for_the_balancer_and_enters_the_pool(
    start: StartBalancer, start_agent: Start, store: Store
) -> None:
    new = await ApiKeys(store, SystemClock()).create("gpu-hosts", scopes=("agent",))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    agent = await start_agent(f"127.0.0.1:{port}", new.secret)
    await agent.logged("the balancer does not say where Redis is yet, trying again")
    await start(store, "--management-addr", f"127.0.0.1:{port}")
    await agent.logged("registered")
    assert await num_agents(store) == 1
    assert new.secret not in agent.text


async def test_agents_are_told_of_another_way_than_the_balancers_own(
    start: StartBalancer, start_agent: Start, store: Store
) -> None:
    """Here by another name of the host; in a fleet an ACL user of their own, or an address that they can reach."""
    new = await ApiKeys(store, SystemClock()).create("gpu-hosts", scopes=("agent",))
    other = store.url.replace("127.0.0.1", "localhost")
    balancer = await start(store, "--agent-redis-url", other)
    async with balancer.http("management") as http:
        told = (await http.get(PATH, headers={"authorization": f"Bearer {new.secret}"})).json()
    assert told == {"redis_url": other, "redis_prefix": store.prefix}
    agent = await start_agent(balancer.addresses["management"], new.secret)
    await agent.logged("registered")
    assert await num_agents(store) == 1


async def test_an_agent_that_is_refused_ends(start: StartBalancer, start_agent: Start, store: Store) -> None:
    new = await ApiKeys(store, SystemClock()).create("clients", scopes=("inference",))
    balancer = await start(store)
    agent = await start_agent(balancer.addresses["management"], new.secret)
    await wait_until(lambda: not agent.is_running, timeout_s=60, what="the agent ends")
    assert agent.process.returncode == 1
    assert "has not the scope `agent`" in " ".join(agent.text.replace("│", " ").split())
    assert new.secret not in agent.text
    assert await num_agents(store) == 0


def test_of_a_url_that_names_files_the_rest_is_told() -> None:
    url = "rediss://user:pw@redis.example:6380/1?password_file=/p&ssl_ca_certs=/ca.pem&ssl_check_hostname=no"
    assert without_files(url) == "rediss://user:pw@redis.example:6380/1?ssl_check_hostname=no"
    assert without_files("unix:///run/valkey.sock?db=0") == "unix:///run/valkey.sock?db=0"
    assert without_files("redis://h/0?password_file=/p") == "redis://h/0"


@pytest.mark.parametrize(
    ("url", "of_user", "of_another"),
    [
        ("redis://h:1/0", "redis://h:1/0", "redis://h:1/0"),
        ("rediss://user:p%40w@h:1/0?a=b", "rediss://user@h:1/0?a=b", "rediss://h:1/0?a=b"),
        ("redis://:pw@h", "redis://h", "redis://h"),
        ("redis+sentinel://user:pw@a:1,b:2/m", "redis+sentinel://user@a:1,b:2/m", "redis+sentinel://a:1,b:2/m"),
        ("unix://user:pw@/run/valkey.sock", "unix://user@/run/valkey.sock", "unix:///run/valkey.sock"),
        ("unix:///run/valkey.sock?db=0", "unix:///run/valkey.sock?db=0", "unix:///run/valkey.sock?db=0"),
    ],
)
def test_for_who_has_a_login_of_its_own(url: str, of_user: str, of_another: str) -> None:
    assert (without_login(url, keeps_user=True), without_login(url)) == (of_user, of_another)


@pytest.mark.parametrize(
    ("told", "flags", "used"),
    [
        ("redis://balancer@h/0", (), "redis://balancer@h/0"),
        ("redis://balancer@h/0", ("--redis-username", "agent"), "redis://agent@h/0"),
        ("redis://balancer:pw@h/0", ("--redis-password-file", "pw"), "redis://balancer@h/0?password_file={pw}"),
    ],
)
def test_an_agents_own_user_and_password_come_before_what_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, flags: tuple[str, ...], used: str
) -> None:
    seen: list[str] = []

    def connect(url: str, prefix: str) -> None:
        seen.append(url)
        raise SystemExit(0)

    async def ask_until_told(*_: object) -> AgentAccess:
        return AgentAccess(told, "paddler")

    def ignore(*_: str) -> None: ...

    monkeypatch.setattr(main, "connect", connect)
    monkeypatch.setattr("workers.agent.redis_told.ask_until_told", ask_until_told)
    monkeypatch.setattr("paddler.logs.configure", ignore)
    monkeypatch.setattr("faulthandler.enable", ignore)
    (pw := tmp_path / "pw").write_text("secret")
    given = [str(pw) if one == "pw" else one for one in flags]
    asked = ("--management-addr", "127.0.0.1:1", "--management-api-key-file", str(pw))
    result = CliRunner().invoke(main.command, ["--engine", "scripted", "--slots", "1", *asked, *given])
    assert result.exit_code == 0, result.output
    assert seen == [used.format(pw=pw)]


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://localhost", True),
        ("redis://[::1]:6379", True),
        ("unix:///run/valkey.sock", True),
        ("redis://192.0.2.1", False),
        ("redis://redis.example", False),
        ("redis+sentinel://127.0.0.1:1,192.0.2.1:1/mymaster", False),
    ],
)
def test_an_address_that_is_of_no_use_elsewhere_is_not_told_there(url: str, is_local: bool) -> None:
    access = AgentAccess(url, "paddler")
    assert is_of_one_machine(url) == is_local
    assert [told_to(access, host) for host in (None, "127.0.0.1", "::1", "::ffff:127.0.0.1")] == [access] * 4
    if is_local:
        with pytest.raises(Conflict, match="--agent-redis-url"):
            told_to(access, "192.0.2.7")
    else:
        assert told_to(access, "192.0.2.7") == access


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--management-addr", "127.0.0.1:1"), "needs --management-api-key-file"),
        (("--management-addr", "127.0.0.1"), "neither host:port nor a URL"),
        (("--management-addr", "aws:metadata:local-ipv4"), "say which one to ask"),
        (("--management-addr", "ftp://x:1"), "neither host:port nor a URL"),
        (("--management-addr", "127.0.0.1:1", "--management-api-key-file", "/nowhere"), "No such file"),
        (("--management-addr", "127.0.0.1:1", "--management-api-key-file", "/dev/null"), "holds no key"),
        (
            ("--management-addr", "127.0.0.1:1", "--management-api-key-file", "k", "--redis-url", "redis://127.0.0.1"),
            "leave one out",
        ),
    ],
)
def test_flags_that_do_not_go_together(flags: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(main.command, ["--engine", "scripted", "--slots", "1", *flags])
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())


def test_the_variable_of_a_balancer_on_this_machine_is_none_of_an_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have the name PADDLER_MANAGEMENT_ADDR; without a key it is where a balancer listens."""
    seen: list[str] = []

    def connect(url: str, prefix: str) -> None:
        seen.append(url)
        raise SystemExit(0)

    def ignore(*_: str) -> None: ...

    monkeypatch.setattr(main, "connect", connect)
    monkeypatch.setattr("paddler.logs.configure", ignore)
    monkeypatch.setattr("faulthandler.enable", ignore)
    for address in ("0.0.0.0:8060", "aws:metadata:local-ipv4"):
        monkeypatch.setenv("PADDLER_MANAGEMENT_ADDR", address)
        result = CliRunner().invoke(main.command, ["--engine", "scripted", "--slots", "1"])
        assert result.exit_code == 0, result.output
    assert seen == ["redis://127.0.0.1:6379/0"] * 2
