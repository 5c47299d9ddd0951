"""What is wrong with a request is said at once, by field and with a true HTTP status; nothing is silently ignored."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import rich_click as click
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from story_harness import SCRIPTED, Command, Queue, asking

from paddler.cli import ENTRY_POINTS
from paddler.store import remedies

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


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


FREE = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        (("agent", *SCRIPTED, "--slots", "1"), "cannot register, trying again"),
        (("balancer", *FREE), "no subscription to Redis, trying again"),
        (("worker",), "Redis trouble, starting the worker again"),
    ],
    ids=["agent", "balancer", "worker"],
)
async def test_without_redis_each_process_waits_and_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], event: str
) -> None:
    """It ends for no outage, so its log is where an operator looks: what is wrong, and what can be done about it."""
    process = Command(tmp_path / "log", *arguments, "--redis-url", "redis://127.0.0.1:1")
    try:
        record = await process.logged(event)
        assert "Connection refused" in record["error"]
        assert record["remedy"] == remedies.START
    finally:
        process.kill()


def test_every_process_logs_from_info_on() -> None:
    """An operator who has set nothing hears of what matters, and of nothing twice a second."""
    found = {one.name: one.load() for one in metadata.entry_points(group=ENTRY_POINTS)}
    processes = [
        option
        for command in found.values()
        if isinstance(command, click.Command)
        for option in command.params
        if "--log-level" in option.opts
    ]
    assert len(processes) >= 4, "agent, balancer, worker and up"
    assert {option.default for option in processes} == {"info"}
