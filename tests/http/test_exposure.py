"""Without keys nobody but this machine reaches a service, unless the operator says so."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from balancer_process import StartBalancer
from click.testing import CliRunner

from api import serve
from api.exposure import Exposed, check_exposure, exposed_flags
from api.sockets import bind
from paddler.clock import SystemClock
from paddler.settings import Address
from paddler.store.client import Store, connect
from paddler.tenants.keys import ApiKeys

pytestmark = pytest.mark.anyio

ANYWHERE = ("--inference-addr", "0.0.0.0:0")


@pytest.mark.parametrize(
    ("host", "is_exposed"),
    [("127.0.0.1", False), ("127.0.0.2", False), ("localhost", False), ("0.0.0.0", True), ("::1", False), ("::", True)],
)
def test_what_other_machines_can_reach(host: str, is_exposed: bool) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bind("--inference-addr", Address(host, 0)) as listener:
        found = exposed_flags({"--inference-addr": listener})
    assert bool(found) == is_exposed
    assert all(one.startswith("--inference-addr ") for one in found)


async def test_it_may_listen_once_there_is_a_key(store: Store) -> None:
    keys = ApiKeys(store, SystemClock())
    with pytest.raises(Exposed, match=r"--inference-addr 0\.0\.0\.0:1 .*paddler keys create.*--insecure"):
        await check_exposure(["--inference-addr 0.0.0.0:1"], keys)
    await keys.create("alice")
    await check_exposure(["--inference-addr 0.0.0.0:1"], keys)


async def test_a_redis_that_is_away_does_not_keep_it_from_starting() -> None:
    """Nobody is let in then: see below."""
    store = connect("redis://127.0.0.1:1/0")
    await check_exposure(["--inference-addr 0.0.0.0:1"], ApiKeys(store, SystemClock()))
    await store.close()


@pytest.mark.parametrize("exposed", ["--inference-addr", "--web-admin-panel-addr"])
async def test_the_balancer_says_what_to_do_and_ends(store: Store, exposed: str) -> None:
    addresses = dict.fromkeys(("--inference-addr", "--management-addr"), "127.0.0.1:0") | {exposed: "0.0.0.0:0"}
    flags = [part for pair in addresses.items() for part in pair]
    flags += ["--redis-url", store.url, "--redis-prefix", store.prefix]
    result = await asyncio.to_thread(CliRunner().invoke, serve.command, flags)
    assert result.exit_code == 2
    assert f"{exposed} 0.0.0.0:" in result.stderr
    assert "paddler keys create" in result.stderr


async def test_the_operator_may_insist(start: StartBalancer, store: Store) -> None:
    balancer = await start(store, *ANYWHERE, "--insecure")
    url = balancer.addresses["inference"].replace("0.0.0.0", "127.0.0.1")
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{url}/v1/models")).status_code == 200


async def test_where_others_can_reach_it_a_key_is_needed_even_if_the_last_is_forgotten(
    start: StartBalancer, store: Store
) -> None:
    keys = ApiKeys(store, SystemClock())
    new = await keys.create("alice")
    balancer = await start(store, *ANYWHERE)
    url = balancer.addresses["inference"].replace("0.0.0.0", "127.0.0.1")
    async with httpx.AsyncClient(trust_env=False) as http:
        own = {"authorization": f"Bearer {new.secret}"}
        assert (await http.get(f"{url}/v1/models", headers=own)).status_code == 200
        assert (await http.get(f"{url}/v1/models")).status_code == 401
        await keys.revoke(new.key.id)
        await keys.forget(new.key.id)
        assert (await http.get(f"{url}/v1/models")).status_code == 401
