"""The preview of a chat template: rendered by an agent that serves the model, without a slot or a request."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fleet_harness import Fleet, RunningAgent
from http_harness import HttpBalancer, NewAgent
from openapi_checks import Document
from starter_engine import starter_engine
from tiny_vision import picture

from api.management.preview import read_preview
from paddler.desired.schema import MAX_TEMPLATE
from paddler.errors import InvalidField
from paddler.store.client import Store
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate

pytestmark = pytest.mark.anyio

PREVIEW = "/api/v1/chat_template_preview"
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def http(balancer: HttpBalancer) -> AsyncIterator[httpx.AsyncClient]:
    async with balancer.http("management") as http:
        yield http


async def is_heard(fleet: Fleet, agent: RunningAgent) -> None:
    channel = fleet.pool.keys.control(agent.loop.agent_id)

    async def is_there() -> bool:
        return (await fleet.pool.redis.pubsub_numsub(channel))[0][1] > 0

    await wait_until(is_there, what="the agent listens")


async def previewed(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await http.post(PREVIEW, json={"messages": TALK, **fields})
    assert answer.status_code == 200, answer.text
    await as_promised(http, PREVIEW, answer)
    return answer.json()


async def as_promised(http: httpx.AsyncClient, path: str, answer: httpx.Response) -> None:
    document = Document((await http.get("/openapi.json")).json())
    method = answer.request.method.lower()
    document.check(path, method, answer.status_code, answer.headers["content-type"], answer.text)


async def test_the_same_prompt_as_of_a_request(balancer: HttpBalancer, fleet: Fleet, http: httpx.AsyncClient) -> None:
    """Of SmolLM2's own template, and of it with a change."""
    agent = await fleet.agent(engine=starter_engine())
    await is_heard(fleet, agent)
    shown = await previewed(http)
    async with balancer.http() as inference:
        applied = await inference.post("/apply-template", json={"messages": TALK})
    assert shown["prompt"] == applied.json()["prompt"]
    assert (shown["source"], shown["agent"], shown["agent_name"]) == ("model", agent.loop.agent_id, "test")
    metadata = (await http.get(f"/api/v1/agent/{agent.loop.agent_id}/model_metadata")).json()["metadata"]
    changed = metadata["tokenizer.chat_template"].replace("<|im_start|>", "[[").replace("<|im_end|>", "]]")
    told = await previewed(http, chat_template=changed)
    assert told["prompt"] == shown["prompt"].replace("<|im_start|>", "[[").replace("<|im_end|>", "]]")
    assert told["source"] == "given"
    assert await fleet.demand() == 0


async def test_it_waits_for_no_slot(fleet: Fleet, http: httpx.AsyncClient) -> None:
    await is_heard(fleet, await fleet.agent(engine=ScriptedEngine(slots=1)))
    gateway = await fleet.gateway()
    async with await gateway.submit("default", Generate(prompt="long [[tokens=100000]]")):
        told = await previewed(http, chat_template="{{ messages[-1].content }}", add_generation_prompt=False)
        assert told["prompt"] == "Who are you?"


async def test_what_is_wrong_with_it(fleet: Fleet, http: httpx.AsyncClient) -> None:
    await is_heard(fleet, await fleet.agent())
    told = await previewed(http, chat_template="{{ messages }}\n{% if %}")
    assert (told["prompt"], told["line"], told["is_cut"]) == (None, 2, False)
    assert "line 2" in told["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": TALK, "chat_template": 3}, "chat_template"),
        ({"messages": TALK, "template": ""}, "template"),
    ],
)
async def test_mistakes(http: httpx.AsyncClient, body: dict[str, Any], words: str) -> None:
    answer = await http.post(PREVIEW, json=body)
    assert answer.status_code == 400
    assert words in answer.text


def test_a_template_is_no_longer_than_one_of_a_state() -> None:
    with pytest.raises(InvalidField, match="chat_template"):
        read_preview(json.dumps({"messages": TALK, "chat_template": "x" * (MAX_TEMPLATE + 1)}).encode())


def test_images_are_refused() -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(picture()).decode()}"}}
    with pytest.raises(InvalidField, match="a preview is of text alone"):
        read_preview(json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode())


async def test_nobody_can_tell(http: httpx.AsyncClient, new_agent: NewAgent) -> None:
    answer = await http.post(PREVIEW, json={"messages": TALK})
    assert answer.status_code == 409
    assert "No agent of the pool default serves a model" in answer.json()["error"]["message"]
    answer = await http.post("/api/v1/pools/nowhere/chat_template_preview", json={"messages": TALK})
    assert answer.status_code == 404
    await new_agent()
    answer = await http.post(PREVIEW, json={"messages": TALK})
    assert (answer.status_code, answer.text.partition(" within")[0]) == (504, "No agent has answered")


async def test_the_parameters(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/inference_parameters")
    await as_promised(http, "/api/v1/inference_parameters", answer)
    found = {one["name"]: one for one in answer.json()["parameters"]}
    assert found["top_p"]["maximum"] == 1
    assert found["context_size"] == {
        "name": "context_size",
        "group": "Engine",
        "kind": "integer",
        "default": 8192,
        "minimum": 64,
        "maximum": 2147483647,
        "choices": None,
        "max_length": None,
        "max_items": None,
        "off": None,
        "is_nullable": False,
        "needs_reload": True,
        "is_ours": False,
        "meaning": found["context_size"]["meaning"],
    }
