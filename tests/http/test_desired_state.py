"""The desired state over HTTP: with the published client of Paddler 4, and what it does not know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_harness import HttpBalancer, NewAgent, chat, http_balancer
from native_harness import management
from openapi_checks import Document
from paddler_client import ClientManagement
from paddler_client.agent_desired_model import AgentDesiredModel
from paddler_client.balancer_desired_state import BalancerDesiredState as TheirState
from paddler_client.chat_template import ChatTemplate
from paddler_client.error import HttpError
from paddler_client.inference_parameters import InferenceParameters as TheirParameters
from paddler_client.url_model_reference import UrlModelReference

from paddler.desired.document import document_of
from paddler.desired.schema import BalancerDesiredState
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

STATE = "/api/v1/balancer_desired_state"
APPLICABLE = "/api/v1/balancer_applicable_state"
HISTORY = "/api/v1/history"
PATCH = {"content-type": "application/merge-patch+json"}
DEFAULT: dict[str, Any] = document_of(BalancerDesiredState())


@pytest.fixture
async def client(balancer: HttpBalancer) -> AsyncIterator[ClientManagement]:
    async with management(balancer.url("management")) as client:
        yield client


@pytest.fixture
async def http(balancer: HttpBalancer) -> AsyncIterator[httpx.AsyncClient]:
    async with balancer.http("management") as http:
        yield http


def warm(temperature: float) -> dict[str, Any]:
    return {"inference_parameters": {"temperature": temperature}}


async def patch(http: httpx.AsyncClient, body: Any, *, at: str = STATE, **headers: str) -> httpx.Response:
    return await http.patch(at, content=json.dumps(body), headers=PATCH | headers)


async def test_with_the_published_client(client: ClientManagement) -> None:
    found = await client.get_balancer_desired_state()
    assert found.model == AgentDesiredModel.none()
    wanted = TheirState(
        model=AgentDesiredModel.from_url(UrlModelReference(url="https://example.org/m.gguf")),
        chat_template_override=ChatTemplate(content="{{ messages }}"),
        use_chat_template_override=True,
        inference_parameters=TheirParameters(temperature=0.25, n_gpu_layers=-1),
    )
    await client.put_balancer_desired_state(wanted)
    assert await client.get_balancer_desired_state() == wanted
    await client.put_balancer_desired_state(TheirState())
    assert await client.get_balancer_desired_state() == TheirState()


async def test_the_published_client_is_told_what_is_wrong(client: ClientManagement) -> None:
    with pytest.raises(HttpError, match="image_resize_to_fit") as refused:
        await client.put_balancer_desired_state(TheirState(inference_parameters=TheirParameters(image_resize_to_fit=0)))
    assert refused.value.status_code == 400


async def test_versions_are_etags(http: httpx.AsyncClient) -> None:
    answer = await http.get(STATE)
    assert (answer.status_code, answer.headers["etag"], answer.json()) == (200, '"0"', DEFAULT)
    answer = await http.put(STATE, json=DEFAULT)
    assert (answer.status_code, answer.headers["etag"], answer.content) == (204, '"1"', b"")
    answer = await http.put(STATE, json=DEFAULT | {"aliases": ["a"]})
    assert answer.headers["etag"] == '"2"'
    assert (await http.get(STATE)).json() == DEFAULT | {"aliases": ["a"]}


@pytest.mark.parametrize("tag", ['"0"', '"2"', 'W/"1"', '"7", "8"', 'W/"1", "8"'])
async def test_a_change_of_another_version_is_refused(http: httpx.AsyncClient, tag: str) -> None:
    await http.put(STATE, json=DEFAULT)
    for answer in (
        await http.put(STATE, json=DEFAULT | {"aliases": ["a"]}, headers={"if-match": tag}),
        await patch(http, {"aliases": ["a"]}, **{"if-match": tag}),
        await http.post(f"{HISTORY}/1/rollback", headers={"if-match": tag}),
    ):
        assert answer.status_code == 412
        assert answer.json()["error"]["code"] == "version_conflict"
    answer = await http.get(STATE)
    assert (answer.headers["etag"], answer.json()) == ('"1"', DEFAULT)


@pytest.mark.parametrize("tag", ['"1"', "*", '"7", "1"', 'W/"7", "1"'])
async def test_a_change_of_this_version_is_made(http: httpx.AsyncClient, tag: str) -> None:
    await http.put(STATE, json=DEFAULT)
    answer = await http.put(STATE, json=DEFAULT | {"aliases": ["a"]}, headers={"if-match": tag})
    assert (answer.status_code, answer.headers["etag"]) == (204, '"2"')


@pytest.mark.parametrize("tag", ["1", "", '"a"', '"1" "2"', "'1'"])
async def test_what_is_no_etag(http: httpx.AsyncClient, tag: str) -> None:
    answer = await http.put(STATE, json=DEFAULT, headers={"if-match": tag})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "If-Match"


async def test_a_patch(http: httpx.AsyncClient) -> None:
    answer = await patch(http, warm(0.25) | {"model": {"LocalToAgent": "/m.gguf"}})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    parameters = DEFAULT["inference_parameters"] | {"temperature": 0.25}
    expected = DEFAULT | {"inference_parameters": parameters, "model": {"LocalToAgent": "/m.gguf"}}
    assert answer.json() == expected == (await http.get(STATE)).json()
    answer = await http.patch(STATE, json={"model": "None", "inference_parameters": None})
    assert answer.json() == DEFAULT
    assert (await patch(http, warm(0.25), **{"if-match": '"2"'})).status_code == 200


async def test_of_two_patches_at_once_both_count(http: httpx.AsyncClient) -> None:
    fields = ("temperature", "top_p", "min_p", "typical_p")
    answers = await asyncio.gather(*(patch(http, {"inference_parameters": {name: 0.125}}) for name in fields))
    assert [answer.status_code for answer in answers] == [200] * 4
    found = (await http.get(STATE)).json()["inference_parameters"]
    assert [found[name] for name in fields] == [0.125] * 4


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b'{"modl": "None"}', "modl", "did you mean `model`?"),
        (b'{"inference_parameters": {"top_p": 2}}', "inference_parameters.top_p", "between 0 and 1"),
        (b'{"model": {"LocalToAgent": "/a", "Url": {"url": "http://h/m"}}}', "model", "exactly one of"),
        (b"[]", None, "JSON object"),
        (b"{", None, "no valid JSON"),
    ],
)
async def test_a_mistake_in_a_patch(http: httpx.AsyncClient, body: bytes, param: str | None, words: str) -> None:
    answer = await http.patch(STATE, content=body, headers=PATCH)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert words in error["message"]


async def test_a_body_that_claims_to_be_a_form(http: httpx.AsyncClient) -> None:
    answer = await http.put(STATE, content=json.dumps(DEFAULT), headers={"content-type": "text/plain"})
    assert answer.status_code == 415


async def test_what_agents_are_to_apply(http: httpx.AsyncClient) -> None:
    answer = await http.get(APPLICABLE)
    assert (answer.json(), answer.headers["etag"]) == (None, '"0"')
    template = {"content": "x"}
    await patch(http, {"chat_template_override": template, "aliases": ["a"]})
    found = (await http.get(APPLICABLE)).json()
    assert found == {name: DEFAULT[name] for name in DEFAULT if name != "use_chat_template_override"}
    await patch(http, {"use_chat_template_override": True})
    assert (await http.get(APPLICABLE)).json()["chat_template_override"] == template


async def test_the_history_tells_which_key_changed_it(balancer: HttpBalancer) -> None:
    new = await balancer.new_key("ops", "management")
    async with balancer.http("management", new.secret) as http:
        await patch(http, warm(0.25))
        (version,) = (await http.get(HISTORY)).json()["history"]
    assert version["author"] == f"management, key ops ({new.key.id}), 127.0.0.1"


async def test_history_and_rollback(http: httpx.AsyncClient) -> None:
    assert (await http.get(HISTORY)).json() == {"current": 0, "history": []}
    for temperature in (0.25, 0.5, 0.75):
        await patch(http, warm(temperature))
    told = (await http.get(HISTORY)).json()
    assert told["current"] == 3
    assert [one["version"] for one in told["history"]] == [3, 2, 1]
    assert all(one["author"] == "management, 127.0.0.1" for one in told["history"])
    assert told["history"][0]["updated_ms"] >= told["history"][2]["updated_ms"] > 1_600_000_000_000
    first = await http.get(f"{HISTORY}/1")
    assert first.headers["etag"] == '"1"'
    assert first.json()["balancer_desired_state"]["inference_parameters"]["temperature"] == 0.25
    rolled = await http.post(f"{HISTORY}/1/rollback")
    assert (rolled.status_code, rolled.json()["version"]) == (200, 4)
    assert rolled.json()["balancer_desired_state"] == first.json()["balancer_desired_state"]
    assert (await http.get(STATE)).json() == first.json()["balancer_desired_state"]
    for answer in (await http.get(f"{HISTORY}/9"), await http.post(f"{HISTORY}/9/rollback")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "state_not_found")


async def test_the_same_for_every_pool(http: httpx.AsyncClient) -> None:
    at = "/api/v1/pools/chat/balancer_desired_state"
    assert (await patch(http, warm(0.25), at=at)).headers["etag"] == '"1"'
    assert (await http.put(at, json=DEFAULT)).headers["etag"] == '"2"'
    assert (await http.get(STATE)).headers["etag"] == '"0"'
    assert (await http.get("/api/v1/pools/chat/balancer_applicable_state")).json() is not None
    assert (await http.get("/api/v1/pools/chat/history")).json()["current"] == 2
    assert (await http.post("/api/v1/pools/chat/history/1/rollback")).json()["version"] == 3
    assert (await http.get("/api/v1/pools/default/balancer_desired_state")).headers["etag"] == '"0"'
    answer = await http.get("/api/v1/pools/Chat/balancer_desired_state")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


async def test_aliases_are_models(balancer: HttpBalancer, http: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent(model="tiny")
    await patch(http, {"aliases": ["gpt-4o", "tiny"]})
    async with balancer.http() as inference:

        async def names() -> list[str]:
            return [one["id"] for one in (await inference.get("/v1/models")).json()["data"]]

        async def is_listed() -> bool:
            return "gpt-4o" in await names()

        await wait_until(is_listed)
        assert await names() == ["default", "gpt-4o", "tiny"]
        assert (await inference.get("/v1/models/gpt-4o")).json()["id"] == "gpt-4o"
        asking = asyncio.create_task(inference.post("/v1/chat/completions", json=chat() | {"model": "gpt-4o"}))
        await (await agent.take()).finish()
        assert (await asking).json()["model"] == "gpt-4o"


async def test_an_alias_of_another_pool(balancer: HttpBalancer, http: httpx.AsyncClient, new_agent: NewAgent) -> None:
    """The operator's word comes before the name of a model that happens to be served."""
    at = "/api/v1/pools/chat/balancer_desired_state"
    await new_agent(model="tiny")
    assert (await patch(http, {"aliases": ["big", "tiny"]}, at=at)).status_code == 200
    for clash in ("big", "chat"):
        answer = await patch(http, {"aliases": [clash]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert {one: await balancer.gateway.resolve(one) for one in ("big", "tiny", "chat", "default")} == {
        "big": "chat",
        "tiny": "chat",
        "chat": "chat",
        "default": "default",
    }


async def test_answers_are_in_the_document(http: httpx.AsyncClient) -> None:
    found = Document((await http.get("/openapi.json")).json())
    template = {"chat_template_override": {"content": "x"}, "use_chat_template_override": True}
    await patch(http, template | {"model": {"LocalToAgent": "/m"}, "aliases": ["a"]})

    def check(path: str, method: str, answer: httpx.Response) -> None:
        found.check(path, method, answer.status_code, answer.headers["content-type"], answer.text)

    check(STATE, "patch", await patch(http, warm(0.5)))
    for path in (STATE, APPLICABLE, HISTORY):
        check(path, "get", await http.get(path))
    check(f"{HISTORY}/{{version}}", "get", await http.get(f"{HISTORY}/1"))
    check(f"{HISTORY}/{{version}}/rollback", "post", await http.post(f"{HISTORY}/1/rollback"))
    check(STATE, "patch", await patch(http, {"x": 1}))
    body = found.content["paths"][STATE]["put"]["requestBody"]["content"]["application/json"]["schema"]
    schema = found.content["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(DEFAULT) - {"chat_template_override"}


async def test_redis_is_away(prefix: str) -> None:
    async with http_balancer("redis://127.0.0.1:1", prefix) as balancer, balancer.http("management") as http:
        for answer in (await http.get(STATE), await http.put(STATE, json=DEFAULT), await http.get(HISTORY)):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_what_is_wrong_with_the_request_comes_before_if_match(http: httpx.AsyncClient) -> None:
    await http.put(STATE, json=DEFAULT)
    outdated = {"if-match": '"7"'}
    no_patch = await http.patch(STATE, content=b'"text"', headers=PATCH | outdated)
    assert no_patch.status_code == 400
    never_was = await http.post("/api/v1/history/-4/rollback", headers=outdated)
    assert never_was.status_code == 404
    assert (await http.post("/api/v1/history/1/rollback", headers=outdated)).status_code == 412
