"""`/v1/models` with the official `anthropic` client; others see OpenAI's objects on the same routes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from anthropic import AuthenticationError, BadRequestError, NotFoundError
from http_harness import HandAgent, HttpBalancer, NewAgent
from openapi_checks import Document

from paddler.model_facts import ModelFacts, encode_facts
from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

VERSION = {"anthropic-version": "2023-06-01"}
FACTS = ModelFacts(vocab_type=1, n_vocab=10, n_ctx=2048, n_ctx_train=8192, n_embd=64, n_params=1000, size=4000)


@pytest.mark.parametrize("service", ["inference", "openai"])
async def test_models_are_listed_and_retrieved(balancer: HttpBalancer, agent: HandAgent, service: str) -> None:
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot={"model": "tiny", "facts": encode_facts(FACTS)})
    async with balancer.anthropic(service) as client:

        async def is_told() -> bool:
            return (await client.models.retrieve("tiny")).max_input_tokens == 2048

        await wait_until(is_told, what="what the balancer knows of its agents is as new as that")
        listed = [model async for model in client.models.list()]
        assert {model.id for model in listed} == {"default", "tiny"}
        for model in listed:
            assert (model.type, model.display_name, model.lifecycle) == ("model", model.id, "active")
            assert (model.max_input_tokens, model.max_tokens) == (2048, 2048)
            assert model.created_at == datetime.fromtimestamp(1_700_000_000, UTC)
            found = await client.models.retrieve(model.id)
            assert found == model
            assert (found._request_id or "").startswith("req_")
        with pytest.raises(NotFoundError) as refused:
            await client.models.retrieve("nobody")
        assert "No model is called 'nobody'" in str(refused.value)
        assert refused.value.type == "not_found_error"


async def test_pages(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    for number in range(5):
        await new_agent(model=f"model-{number}")
    async with balancer.anthropic() as client:
        every = [model.id async for model in client.models.list(limit=2)]
        assert sorted(every) == ["default", *(f"model-{number}" for number in range(5))]
        page = await client.models.list(limit=2, before_id=every[4])
        assert ([model.id for model in page.data], page.has_more) == (every[2:4], True)
        page = await client.models.list(limit=2, before_id=every[2])
        assert ([model.id for model in page.data], page.has_more) == (every[:2], False)
        assert (page.first_id, page.last_id) == (every[0], every[1])
        page = await client.models.list(after_id=every[-1])
        assert (page.data, page.has_more, page.first_id) == ([], False, None)
        for query in ({"limit": 0}, {"limit": 1001}, {"after_id": "nobody"}, {"after_id": "a", "before_id": "b"}):
            with pytest.raises(BadRequestError) as refused:
                await client.models.list(**query)  # pyright: ignore[reportArgumentType]
            assert refused.value.type == "invalid_request_error"


async def test_who_sends_no_version_sees_openais_objects(balancer: HttpBalancer, agent: HandAgent) -> None:
    """And the document knows both."""
    async with balancer.http() as http:
        document = Document((await http.get("/openapi.json")).json())

        async def ask(url: str, path: str, status: int, **headers: str) -> Any:
            answer = await http.get(url, headers=headers)
            assert answer.status_code == status
            document.check(path, "get", status, answer.headers["content-type"], answer.text)
            return answer.json()

        one, some = "/v1/models/{model_path}", "/v1/models"
        assert (await ask("/v1/models", some, 200))["object"] == "list"
        assert len((await ask("/v1/models?limit=1&nonsense=1", some, 200))["data"]) == 1
        assert "code" in (await ask("/v1/models?limit=0", some, 400))["error"]
        assert (await ask("/v1/models/tiny", one, 200))["owned_by"] == "paddler"
        assert "code" in (await ask("/v1/models/x", one, 404))["error"]
        assert "has_more" in await ask("/v1/models", some, 200, **VERSION)
        assert (await ask("/v1/models/tiny", one, 200, **VERSION))["display_name"] == "tiny"
        assert (await ask("/v1/models/x", one, 404, **VERSION))["error"]["type"] == "not_found_error"
        assert (await ask("/v1/models?nonsense=1", some, 400, **VERSION))["type"] == "error"


async def test_a_key_is_asked_for_in_the_form_that_is_spoken(balancer: HttpBalancer, store: Store) -> None:
    key = await balancer.new_key("alice", requests_per_minute=60)
    async with balancer.anthropic() as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.models.list()
        assert refused.value.type == "authentication_error"
        let_in = client.with_options(api_key=key.secret)
        assert [model.id async for model in let_in.models.list()] == ["default"]
    async with httpx.AsyncClient(base_url=balancer.url(), trust_env=False) as http:
        answer = await http.get("/v1/models")
        assert (answer.status_code, "code" in answer.json()["error"]) == (401, True)
