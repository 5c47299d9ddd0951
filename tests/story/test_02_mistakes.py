"""What is wrong with a request is said at once, by field and with a true HTTP status; nothing is silently ignored."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from story_harness import Queue, asking

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.xdist_group("story")]


async def test_a_field_out_of_range_is_named(client: AsyncOpenAI, queue: Queue) -> None:
    """The balancer checks every field before the request costs anything: no slot, no place in the queue."""
    known = await queue.requests()
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(model="default", messages=asking("hi"), temperature=5)
    assert refused.value.param == "temperature"
    assert await queue.requests() == known


async def test_what_is_not_supported_yet_is_refused(client: AsyncOpenAI) -> None:
    """A client that asks for speech and gets text is worse off than one that is told."""
    with pytest.raises(BadRequestError, match="not supported yet") as refused:
        await client.chat.completions.create(model="default", messages=asking("hi"), modalities=["text", "audio"])
    assert refused.value.param == "modalities[1]"


async def test_a_form_that_cannot_be_enforced_is_refused(client: AsyncOpenAI, queue: Queue) -> None:
    """An answer is valid for its schema or there is none: no keyword is left out in silence."""
    known = await queue.requests()
    schema: dict[str, object] = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    with pytest.raises(BadRequestError, match="`uniqueItems` cannot be enforced") as refused:
        await client.chat.completions.create(
            model="default",
            messages=asking("hi"),
            response_format={"type": "json_schema", "json_schema": {"name": "list", "schema": schema}},
        )
    assert refused.value.param == "response_format.json_schema.schema"
    assert await queue.requests() == known


async def test_an_unknown_model_is_a_404_that_lists_the_known(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError, match="there is: default, smollm2-135m-instruct"):
        await client.chat.completions.create(model="gpt-9", messages=asking("hi"))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_prompt_longer_than_the_context(client: AsyncOpenAI, queue: Queue, stream: bool) -> None:
    """Only the agent can count tokens, so this one has been through the queue; a stream still fails by its status,
    because its headers wait for the first token."""
    with pytest.raises(BadRequestError, match="the context holds 8192") as refused:
        await client.chat.completions.create(model="default", messages=asking("word " * 9000), stream=stream)
    assert refused.value.code == "context_length_exceeded"
    assert await queue.is_empty()
