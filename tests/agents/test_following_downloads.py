"""A following agent whose model has to be fetched: what is seen of it meanwhile, and what an operator can do then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from file_server import FileServer, Trick
from following_harness import FollowingFleet

from paddler.desired.schema import GivenModel, UrlReference
from paddler.jobs.agent_orders import AgentOrders
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import Overview
from paddler.store.results import Order
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

SIZE, HALF = 4_000_000, 2_000_000


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


def remote(server: FileServer, name: str) -> GivenModel:
    return GivenModel(Url=UrlReference(url=server.put(f"/{name}.gguf", b"GGUF" + bytes(SIZE - 4))))


def half_way(server: FileServer, name: str) -> None:
    server.trick(f"/{name}.gguf", Trick(stalls_at=HALF))


async def the_lane(following: FollowingFleet) -> Lane:
    [lane] = (await Overview(following.fleet.store).pool("default")).lanes
    return lane


async def test_it_says_how_far_its_download_is(following: FollowingFleet, server: FileServer) -> None:
    model = remote(server, "one")
    half_way(server, "one")
    await following.put(model)
    agent = following.agent()
    told = await agent.is_told(state="waiting", state_application_status="Fresh", download_current=HALF)
    assert (told["download_total"], told["download_filename"], told["issues"]) == (str(SIZE), "one.gguf", "[]")
    lane = await the_lane(following)
    assert (str(lane.download), lane.is_coming, lane.slots, lane.desired_slots) == ("50%", True, 0, 2)
    server.go_on.set()
    told = await agent.is_told(state="ready", state_application_status="Applied")
    assert (told["download_current"], told["download_total"], told["download_filename"]) == ("0", "0", "")


async def test_the_old_model_serves_while_the_next_one_comes(following: FollowingFleet, server: FileServer) -> None:
    await following.put(following.model("one"))
    agent = following.agent()
    await agent.serves("one", 1)
    model = remote(server, "two")
    half_way(server, "two")
    await following.put(model)
    told = await agent.is_told(state="ready", model="one", state_application_status="Fresh", download_current=HALF)
    assert (told["applied_version"], told["desired_version"]) == ("1", "2")
    server.go_on.set()
    await agent.is_told(state="ready", applied_version=2)


async def test_an_operator_removes_one_that_downloads(following: FollowingFleet, server: FileServer) -> None:
    """It ends at once, without an error, and its place is given up."""
    model = remote(server, "one")
    half_way(server, "one")
    await following.put(model)
    agent = following.agent()
    told = await agent.is_told(state="waiting", download_current=HALF)
    await AgentOrders(following.fleet.store).tell("default", told["id"], Order.REMOVE)
    await wait_until(agent.task.done, what="its process ends")
    assert agent.task.result() == 0
    assert await agent.hash == {}


async def test_one_that_was_drained_while_it_waited_serves_drained(
    following: FollowingFleet, server: FileServer
) -> None:
    model = remote(server, "one")
    half_way(server, "one")
    await following.put(model)
    agent = following.agent()
    told = await agent.is_told(state="waiting", download_current=HALF)
    orders = AgentOrders(following.fleet.store)
    await orders.tell("default", told["id"], Order.DRAIN)
    server.go_on.set()
    told = await agent.is_told(state="ready", applied_version=1)
    assert (await the_lane(following)).state == "drained"
    await orders.tell("default", told["id"], Order.UNDRAIN)
    assert (await the_lane(following)).state == "ready"


async def test_what_the_server_has_not_is_told(following: FollowingFleet, server: FileServer) -> None:
    await following.put(GivenModel(Url=UrlReference(url=server.url("/none.gguf"))))
    agent = following.agent()
    await agent.is_told(state="failed", state_application_status="AttemptedAndNotAppliable")
    [issue] = (await the_lane(following)).issues
    assert issue.kind == "ModelDoesNotExistAtUrl"
