"""API keys: the first one closes the fleet to everybody without one; each tenant has its own, and its usage is told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI, AuthenticationError, PermissionDeniedError, RateLimitError
from story_harness import SCRIPTED, CommandFleet

from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


class Shell:
    """A terminal on a machine that reaches the fleet's Redis."""

    def __init__(self, url: str, prefix: str) -> None:
        self._where = ("--redis-url", url, "--redis-prefix", prefix)

    async def run(self, *arguments: str) -> str:
        command = (sys.executable, "-P", "-m", "paddler", *arguments, *self._where)
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def shell(fleet: CommandFleet, valkey: RedisServer) -> Iterator[Shell]:
    """The fleet is open again afterwards, for other tests."""
    shell = Shell(valkey.url, fleet.prefix)
    yield shell

    async def tidy() -> None:
        for key in json.loads(await shell.run("keys", "list", "--json")):
            await shell.run("keys", "revoke", key["id"])
            await shell.run("keys", "forget", key["id"])
        async with AsyncOpenAI(base_url=fleet.balancer_url + "/v1", api_key="none", max_retries=0) as client:

            async def is_open() -> bool:
                try:
                    await client.models.list()
                except AuthenticationError:
                    return False
                return True

            await wait_until(is_open, what="the fleet is open again")

    asyncio.run(tidy())


async def test_a_fleet_for_two_tenants(fleet: CommandFleet, shell: Shell) -> None:
    await fleet.agent("one", *SCRIPTED, "--slots", "4")
    first = await shell.run("keys", "create", "alice", "--requests-per-minute", "2")
    second = await shell.run("keys", "create", "bob", "--scope", "management")
    url = fleet.balancer_url + "/v1"
    async with (
        AsyncOpenAI(base_url=url, api_key=first, max_retries=0) as alice,
        AsyncOpenAI(base_url=url, api_key=second, max_retries=0) as bob,
        AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as nobody,
    ):

        async def is_closed() -> bool:
            try:
                await nobody.models.list()
            except AuthenticationError:
                return True
            return False

        await wait_until(is_closed, what="who has no key is refused")
        for _ in range(2):
            await alice.chat.completions.create(model="default", messages=[{"role": "user", "content": "Hello."}])
        with pytest.raises(RateLimitError):
            await alice.chat.completions.create(model="default", messages=[{"role": "user", "content": "Hello."}])
        with pytest.raises(PermissionDeniedError):
            await bob.models.list()
        (row,) = json.loads(await shell.run("usage", "--json"))["usage"]
        assert (row["tenant"], row["requests"]) == ("alice", 2)
        assert row["prompt_tokens"] > 0 < row["output_tokens"]
        await shell.run("keys", "revoke", first.split("-")[1])

        async def is_refused() -> bool:
            try:
                await alice.models.list()
            except AuthenticationError:
                return True
            return False

        await wait_until(is_refused, what="the revoked key is refused")
