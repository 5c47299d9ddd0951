"""A model that reads images: the client sends one within its question, and everything else is as with text."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, cast

import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from story_harness import CommandFleet, Queue
from tiny_vision import picture, write_projector

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

IMAGE_TOKENS = 64


@pytest.fixture(scope="module")
def projection(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The starter model was never taught to see: a projection of random numbers lends it eyes to tell images apart."""
    return str(write_projector(tmp_path_factory.mktemp("projection") / "mmproj.gguf"))


def showing(words: str, *images: bytes) -> list[ChatCompletionMessageParam]:
    content: list[dict[str, Any]] = [{"type": "text", "text": words}]
    for data in images:
        url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    return [cast(ChatCompletionMessageParam, {"role": "user", "content": content})]


async def ask(client: AsyncOpenAI, words: str, *images: bytes, **fields: Any) -> ChatCompletion:
    asked: dict[str, Any] = {"max_tokens": 8, "temperature": 0, **fields}
    return await client.chat.completions.create(model="default", messages=showing(words, *images), **asked)


async def test_an_image_is_part_of_the_prompt(fleet: CommandFleet, patient: AsyncOpenAI, projection: str) -> None:
    """It counts in `usage`, and the same image again is found in the cache of the agent, another one is not."""
    await fleet.agent("seeing", "--slots", "2", "--threads", "1", "--multimodal-projection", projection)
    blind = await ask(patient, "What is this?")
    first = await ask(patient, "What is this?", picture(1))
    again = await ask(patient, "What is this?", picture(1))
    other = await ask(patient, "What is this?", picture(2))
    assert first.choices[0].message.content
    assert blind.usage is not None
    tokens = [answer.usage.prompt_tokens for answer in (first, again, other) if answer.usage is not None]
    assert tokens == [blind.usage.prompt_tokens + IMAGE_TOKENS] * 3

    def num_cached(answer: ChatCompletion) -> int:
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    assert num_cached(again) > IMAGE_TOKENS > num_cached(other)


async def test_a_killed_agent_leaves_the_image_to_another(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue, projection: str
) -> None:
    """It lies in the queue with the question: whoever takes over looks at it anew and goes on in the same sentence."""
    flags = ("--slots", "1", "--threads", "1", "--multimodal-projection", projection)
    agents = {name: await fleet.agent(name, *flags) for name in ("one", "two")}
    asked: dict[str, Any] = {"max_tokens": 120, "logit_bias": {"2": -100}}
    asking = asyncio.create_task(ask(patient, "Tell me all.", picture(1), **asked))
    request_id = ""

    async def has_begun() -> bool:
        nonlocal request_id
        request_id = next(iter(await fleet_queue.requests("running")), "")
        return bool(request_id) and await fleet_queue.num_tokens(request_id) > 5

    await wait_until(has_begun, timeout_s=60, poll_s=0.02, what="it is being answered")
    agents[(await fleet_queue.agent_names(request_id))[-1]].kill()
    answer = await asking
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(await fleet_queue.token_ids(request_id))
    assert answer.usage.prompt_tokens > IMAGE_TOKENS
    assert len(await fleet_queue.agent_names(request_id)) == 2


async def test_what_is_wrong_with_an_image_is_said(fleet: CommandFleet, patient: AsyncOpenAI, projection: str) -> None:
    """The balancer looks at the header; only the agent sees that the rest is missing. Both name the part."""
    await fleet.agent("seeing", "--slots", "1", "--threads", "1", "--multimodal-projection", projection)
    whole = picture(1, size=(200, 200))
    for data in (b"no image", whole[: len(whole) // 2]):
        with pytest.raises(BadRequestError) as caught:
            await ask(patient, "What is this?", data)
        assert caught.value.param == "messages[0].content[1]"
        assert caught.value.code == "image_decoding_failed"


async def test_a_model_without_eyes_says_so(fleet: CommandFleet, patient: AsyncOpenAI) -> None:
    """Rather than to answer as if there were no image."""
    await fleet.agent("blind", "--slots", "1", "--threads", "1")
    with pytest.raises(BadRequestError, match="--multimodal-projection") as caught:
        await ask(patient, "What is this?", picture(1))
    assert caught.value.param == "messages[0].content[1]"
