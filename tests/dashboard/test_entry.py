"""How one gets in: keys, pools, trouble behind the balancer, hostile names. Against a balancer in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dashboard_harness import watching
from http_harness import HandAgent, HttpBalancer, http_balancer

from paddler.dashboard.address import Access
from paddler.issues import encode_issues, issue_of
from paddler.store.client import Store

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
async def balancer(store: Store) -> AsyncIterator[HttpBalancer]:
    async with http_balancer(store.url, store.prefix) as balancer:
        yield balancer


@pytest.fixture
async def agent(store: Store) -> AsyncIterator[HandAgent]:
    agent = HandAgent(store)
    await agent.register()
    yield agent
    await agent.leave()


async def test_a_key_is_needed_and_comes(balancer: HttpBalancer, agent: HandAgent, tmp_path: Path) -> None:
    """The file is read anew for each call, so a key that is put there counts without a restart."""
    file = tmp_path / "key"
    file.write_text((await balancer.new_key("client", "inference")).secret)
    async with watching(Access(balancer.url("management"), file)) as screen:
        await screen.shows("--api-key-file with a key of scope management")
        file.write_text((await balancer.new_key("operator", "management")).secret + "\n")
        await screen.shows("hand", "live")
        file.unlink()
        await screen.shows("OFFLINE", "No such file")


async def test_pools(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    await store.add_pool("chat")
    async with watching(Access(balancer.url("management"))) as screen:
        await screen.shows("hand")
        await screen.press("p")
        await screen.shows("pool chat", "No agent has joined pool chat.", "--pool chat")
        await screen.press("p")
        await screen.shows("pool default", "hand")
    async with watching(Access(balancer.url("management")), pool="caht") as screen:
        await screen.shows("There is no pool 'caht'; there is: chat, default.")


async def test_names_are_no_commands_and_issues_have_remedies(
    balancer: HttpBalancer, agent: HandAgent, store: Store
) -> None:
    issue = issue_of("ModelFileDoesNotExist", "no such file\x1b[2J", "/m.gguf", waits=True)
    told = {"issues": encode_issues((issue,)), "name": "\x1b[31mred[/]", "state": "failed"}
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot=told)
    async with watching(Access(balancer.url("management"))) as screen:
        await screen.shows("�[31mred[/]", "failed")
        assert screen.line("red").split()[2] == "1"
        await screen.press("enter")
        await screen.shows("Agent �[31mred[/]", "ModelFileDoesNotExist", "no such file�[2J", "Paddler", "you")
        words = " ".join(screen.text.split())
        assert issue.action in words
        assert issue.remedy in words


async def test_a_download_is_seen(balancer: HttpBalancer, agent: HandAgent) -> None:
    told = {"state": "waiting", "download_filename": "m.gguf", "download_current": 45_000_000}
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot=told | {"download_total": 100_000_000})
    async with watching(Access(balancer.url("management"))) as screen:
        await screen.shows("download 45%")
        await screen.press("enter")
        await screen.shows("45%, 45 of 100 MB of m.gguf")
        left = {"download_current": 90_000_000, "download_total": 0, "download_indeterminate": 1}
        await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot=left)
        await screen.shows("m.gguf: 90 MB so far")


async def test_redis_is_away(prefix: str) -> None:
    async with (
        http_balancer("redis://127.0.0.1:1", prefix) as balancer,
        watching(Access(balancer.url("management"))) as screen,
    ):
        await screen.shows("Redis cannot be reached")


async def test_the_age_of_a_lease(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with watching(Access(balancer.url("management"))) as screen:
        await screen.shows("hand")
        assert "-" in screen.line("hand").split()
    await agent.pool.renew(agent.agent_id, lease_ms=40_000, snapshot={"lease_ms": 60_000})
    async with watching(Access(balancer.url("management"))) as screen:
        await screen.shows("hand", " s ")
        assert 20 <= int(screen.line("hand").split()[-4]) < 60
