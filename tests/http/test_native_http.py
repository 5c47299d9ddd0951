"""Native routes over HTTP: the official client on a fleet with a scripted engine, and every error in its place."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fleet_harness import Fleet
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer
from native_harness import Told, conversation, inference, params
from paddler_client import ClientInference
from paddler_client.embedding_input_document import EmbeddingInputDocument
from paddler_client.embedding_normalization_method import EmbeddingNormalizationMethod
from paddler_client.error import HttpError
from paddler_client.generate_embedding_batch_params import GenerateEmbeddingBatchParams
from paddler_client.grammar_constraint import GbnfGrammarConstraint
from paddler_client.inference_message import InferenceMessageKind as Kind
from paddler_client.tool import Function, Tool
from paddler_client.validated_parameters_schema import ValidatedParametersSchema

from api.native.lines import EmptyLines
from paddler.errors import (
    AgentsLost,
    ContextExceeded,
    EngineFailed,
    ImageDecodingFailed,
    InvalidField,
    MultimodalNotSupported,
    PaddlerError,
)
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.wire.balancer import FinishReason, Prefilled, TextFormat, Tokens

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/continue_from_conversation_history"
SAY = "snow ☃, a pair 😀 and a stop"
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "a fox"}}\n</tool_call>'


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def client(balancer: HttpBalancer, fleet: Fleet) -> AsyncIterator[ClientInference]:
    await fleet.agent(slots=4, step_s=0.002)
    async with inference(balancer.url()) as client:
        yield client


async def post(balancer: HttpBalancer, path: str, body: Any) -> tuple[int, list[Any]]:
    """Status, and lines; a text that is no JSON is one line."""
    async with balancer.http() as http:
        answer = await http.post(path, json=body)
    if answer.headers["content-type"].startswith("text/plain"):
        return answer.status_code, [answer.text]
    assert answer.text.endswith("\n")
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


async def test_a_conversation(client: ClientInference) -> None:
    told = await Told().listen(client.post_continue_from_conversation_history(conversation(f"[[say={SAY}]]")))
    assert told.text(Kind.CONTENT_TOKEN) == told.text() == SAY
    assert told.last.is_done
    assert told.last.summary is not None
    usage = told.last.summary.usage
    assert usage.content_tokens == usage.completion_tokens == len(SAY.encode())
    assert usage.prompt_tokens > 0
    assert {message.generated_by for message in told.messages} == {"test"}
    assert len({message.request_id for message in told.messages}) == 1


async def test_health(client: ClientInference) -> None:
    assert await client.get_health() == "OK"


async def test_a_call_of_a_tool(client: ClientInference, balancer: HttpBalancer) -> None:
    """The client cannot ask for `parse_tool_calls`; it gets the tokens of the call, and reads the list if it comes."""
    schema = ValidatedParametersSchema(type="object", properties={"at": {"type": "string"}}, required=["at"])
    tool = Tool(function=Function(name="look", description="Looks.", parameters=schema))
    asked = conversation(f"[[say={CALL}]]", tools=[tool])
    told = await Told().listen(client.post_continue_from_conversation_history(asked))
    assert json.loads(told.text(Kind.TOOL_CALL_TOKEN)) == {"name": "look", "arguments": {"at": "a fox"}}
    assert told.text(Kind.CONTENT_TOKEN) == ""
    assert told.last.summary is not None
    assert told.last.summary.usage.tool_call_tokens == told.last.summary.usage.completion_tokens > 0
    body = asked.model_dump(mode="json", exclude_none=True, by_alias=True) | {"parse_tool_calls": True}
    _, lines = await post(balancer, CHAT, body)
    [call] = lines[-2]["Response"]["response"]["GeneratedToken"]["ToolCallParsed"]
    assert (call["name"], call["arguments"]) == ("look", {"ValidJson": {"at": "a fox"}})
    assert call["id"].startswith("call_")


async def test_reasoning_is_apart(client: ClientInference) -> None:
    asked = conversation("[[say=a thought</think>an answer]][[think]]")
    told = await Told().listen(client.post_continue_from_conversation_history(asked))
    assert told.text(Kind.REASONING_TOKEN) == "a thought"
    assert told.text(Kind.CONTENT_TOKEN) == "an answer"
    assert told.last.summary is not None
    usage = told.last.summary.usage
    # The engine is quick, so that the frame with the mark may have some characters of both.
    assert usage.completion_tokens == len("a thought</think>an answer")
    assert abs(usage.content_tokens - len("an answer")) <= len("</think>")
    assert usage.reasoning_tokens >= len("a thought")


async def test_a_raw_prompt(client: ClientInference, balancer: HttpBalancer) -> None:
    status, lines = await post(
        balancer, "/api/v1/continue_from_raw_prompt", {"raw_prompt": "[[say=so]]", "max_tokens": 1}
    )
    assert status == 200
    results = [line["Response"]["response"]["GeneratedToken"] for line in lines]
    assert results[0] == {"UndeterminableToken": "s"}
    assert results[1]["Done"]["usage"]["undeterminable_tokens"] == 1


async def test_headers_and_going_on_elsewhere(client: ClientInference, balancer: HttpBalancer) -> None:
    """The id in the envelope is the request's: with it any balancer tells the rest, as events of the same envelopes."""
    async with balancer.http() as http:
        answer = await http.post(CHAT, json=params(f"[[say={SAY}]]"))
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-cache"
        lines = answer.text.splitlines()
        request_id = json.loads(lines[0])["Response"]["request_id"]
        assert answer.headers["x-request-id"] == request_id
        stream = (await http.get(f"/v1/requests/{request_id}/stream")).text
        events = [line[6:] for line in stream.splitlines() if line.startswith("data: ")]
        assert events == lines
        first_id = next(line[4:] for line in stream.splitlines() if line.startswith("id: "))
        rest = (await http.get(f"/v1/requests/{request_id}/stream", headers={"last-event-id": first_id})).text
        assert [line[6:] for line in rest.splitlines() if line.startswith("data: ")] == lines[1:]
        status = (await http.get(f"/v1/requests/{request_id}")).json()
        assert status["response"]["choices"][0]["message"]["content"] == SAY


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (CHAT, {"max_tokens": 1}, 400, "Invalid request parameters: `add_generation_prompt` is required."),
        (CHAT, params("a", top_k=1), 400, "Invalid request parameters: Unknown field `top_k`"),
        ("/api/v1/continue_from_raw_prompt", {"max_tokens": 1, "raw_prompt": ""}, 400, "`raw_prompt`"),
        ("/api/v1/generate_embedding_batch", {"input_batch": []}, 400, "Invalid request parameters"),
        ("/api/v1/generate_embedding_batch", b"\xff\xfe", 400, "Invalid request parameters"),
        (CHAT, b"{", 400, "Invalid request parameters: The body is not valid JSON"),
        (CHAT, b"x" * 70_000, 413, ""),
    ],
)
async def test_what_is_no_request_has_a_status_and_a_text(
    balancer: HttpBalancer, path: str, body: Any, status: int, words: str
) -> None:
    async with balancer.http() as http:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await http.post(path, headers={"content-type": "application/json"}, content=content)
    assert answer.status_code == status
    assert words in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


async def test_the_client_raises_for_a_tool_that_requires_what_it_has_not(client: ClientInference) -> None:
    schema = ValidatedParametersSchema(type="object", properties={}, required=["x"])
    asked = conversation("a", tools=[Tool(function=Function(name="f", description="", parameters=schema))])
    with pytest.raises(HttpError, match="Required field 'x' not found in properties") as refused:
        await Told().listen(client.post_continue_from_conversation_history(asked))
    assert refused.value.status_code == 400


async def test_a_broken_grammar_is_told_in_the_stream(client: ClientInference) -> None:
    asked = conversation("a", grammar=GbnfGrammarConstraint(grammar="root ::= (", root="root"))
    told = await Told().listen(client.post_continue_from_conversation_history(asked))
    assert [message.kind for message in told.messages] == [Kind.GRAMMAR_SYNTAX_ERROR]
    assert "line 1" in (told.last.error_message or "")


async def test_overload_is_a_line(new_balancer: NewBalancer) -> None:
    """Nobody is there: one waits too long, and beside it there is no room for another."""
    balancer = await new_balancer(max_buffered_requests=1, buffered_request_timeout_ms=700)
    async with inference(balancer.url()) as client:
        waiting = asyncio.create_task(Told().listen(client.post_continue_from_conversation_history(conversation("a"))))

        async def one_waits() -> bool:
            return await balancer.num_waiting() == 1

        await wait_until(one_waits)
        refused = await Told().listen(client.post_continue_from_conversation_history(conversation("b")))
        timed_out = await waiting
    for told, code, words in (
        (refused, 503, "Buffered requests overflow"),
        (timed_out, 504, "Waiting for available slot timed out"),
    ):
        [message] = told.messages
        assert (message.kind, message.error_code, message.error_message) == (Kind.SERVER_ERROR, code, words)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AgentsLost("3 agents"), (Kind.SERVER_ERROR, 502, "Agent controller connection closed")),
        (EngineFailed("it broke"), (Kind.SERVER_ERROR, 500, "it broke")),
        (ContextExceeded("the prompt has 9 tokens"), (Kind.SERVER_ERROR, 400, "the prompt has 9 tokens")),
        (InvalidField("no such", param="tools"), (Kind.SERVER_ERROR, 400, "Invalid request parameters: no such")),
        (InvalidField("its template", param="messages"), (Kind.CHAT_TEMPLATE_ERROR, None, "its template")),
        (InvalidField("bad", param="grammar"), (Kind.GRAMMAR_SYNTAX_ERROR, None, "bad")),
        (MultimodalNotSupported("`messages[0].content[1]`: no"), None),
        (ImageDecodingFailed("`messages[0].content[1]`: no"), None),
    ],
)
async def test_errors_of_an_agent_are_lines(
    balancer: HttpBalancer, agent: HandAgent, error: PaddlerError, expected: tuple[Kind, int | None, str] | None
) -> None:
    if expected is None:
        kind = Kind.IMAGE_DECODING_FAILED if isinstance(error, ImageDecodingFailed) else Kind.MULTIMODAL_NOT_SUPPORTED
        expected = kind, None, "`conversation_history[0].content[1]`: no"
    async with inference(balancer.url()) as client:
        asking = asyncio.create_task(Told().listen(client.post_continue_from_conversation_history(conversation("a"))))
        request = await agent.take()
        await request.say("begun")
        await request.fail(error)
        told = await asking
    assert told.text() == "begun"
    assert (told.last.kind, told.last.error_code, told.last.error_message) == expected


async def test_a_silent_agent_is_a_line(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    balancer = await new_balancer(inference_item_timeout_ms=300)
    agent = await new_agent()
    async with inference(balancer.url()) as client:
        asking = asyncio.create_task(Told().listen(client.post_continue_from_conversation_history(conversation("a"))))
        request = await agent.take()
        told = await asking
        await request.cancelled()
    assert told.last.error_code == 504
    assert told.last.error_message is not None
    assert told.last.error_message.startswith("Inference timed out after 300ms waiting for next token. Increase")


async def test_a_stopping_balancer_is_a_line(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with inference(balancer.url()) as client:
        asking = asyncio.create_task(Told().listen(client.post_continue_from_conversation_history(conversation("a"))))
        request = await agent.take()
        await request.say("begun")
        balancer.gateway.stop_accepting()
        told = await asking
        again = await Told().listen(client.post_continue_from_conversation_history(conversation("a")))
    for one in (told, again):
        assert (one.last.error_code, one.last.error_message) == (503, "balancer is shutting down")


async def test_leaving_cancels(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        async with http.stream("POST", CHAT, json=params("a")) as answer:
            request = await agent.take()
            await request.say("begun")
            assert "begun" in await anext(answer.aiter_lines())
        await request.cancelled()
    await wait_until(balancer.is_idle)


@pytest.mark.parametrize("is_batch", [False, True])
async def test_who_waits_gets_empty_lines(
    balancer: HttpBalancer, monkeypatch: pytest.MonkeyPatch, is_batch: bool
) -> None:
    """For proxies that cut what is silent; clients skip them."""
    monkeypatch.setattr("api.native.lines.KEEPALIVE_S", 0.05)
    document = {"id": "a", "content": "b"}
    path = "/api/v1/generate_embedding_batch" if is_batch else CHAT
    body = {"input_batch": [document], "normalization_method": "L2"} if is_batch else params("a")
    async with balancer.http() as http, http.stream("POST", path, json=body) as answer:
        lines = answer.aiter_lines()
        assert [await anext(lines) for _ in range(3)] == ["", "", ""]


async def test_empty_lines_are_nothing_to_the_client(
    balancer: HttpBalancer, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.native.lines.KEEPALIVE_S", 0.05)
    written: list[EmptyLines] = []
    break_silence = EmptyLines.break_silence

    async def noted(lines: EmptyLines) -> None:
        await break_silence(lines)
        written.append(lines)

    monkeypatch.setattr(EmptyLines, "break_silence", noted)
    async with inference(balancer.url()) as client:
        asking = asyncio.create_task(Told().listen(client.post_continue_from_conversation_history(conversation("a"))))
        request = await agent.take()
        await wait_until(lambda: len(written) > 2)
        await request.say("one")
        num_before = len(written)
        await wait_until(lambda: len(written) > num_before + 2)
        await request.finish()
        told = await asking
    assert [message.kind for message in told.messages] == [Kind.CONTENT_TOKEN, Kind.DONE]


async def test_a_cancelled_request_says_so(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with inference(balancer.url()) as client, balancer.http() as http:
        asking = asyncio.create_task(Told().listen(client.post_continue_from_conversation_history(conversation("a"))))
        request = await agent.take()
        await http.post(f"/v1/requests/{request.request_id}/cancel")
        await request.cancelled()
        told = await asking
    assert (told.last.error_code, told.last.error_message) == (499, "The request was cancelled.")


async def test_the_template_is_told_of_thinking(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with inference(balancer.url()) as client:
        asked = conversation("a", enable_thinking=False, add_generation_prompt=False, max_tokens=-1)
        asking = asyncio.create_task(Told().listen(client.post_continue_from_conversation_history(asked)))
        request = await agent.take()
        assert request.asked.enable_thinking is False
        assert request.asked.add_generation_prompt is False
        assert request.asked.max_tokens == 0
        await request.emit(Prefilled(5, 2, TextFormat("", "think")))
        await request.emit(Tokens((1, 2), "<think>so</think>"))
        await request.finish(FinishReason.LENGTH)
        told = await asking
    assert told.text(Kind.REASONING_TOKEN) == "so"
    assert told.last.summary is not None
    assert told.last.summary.usage.reasoning_tokens == 2


def documents(*texts: str) -> list[EmbeddingInputDocument]:
    return [EmbeddingInputDocument(id=f"doc-{number}", content=text) for number, text in enumerate(texts)]


async def test_embeddings(client: ClientInference) -> None:
    texts = ["a red fox", "a red cat", "the market fell", *(f"text {number}" for number in range(97))]
    asked = GenerateEmbeddingBatchParams(
        input_batch=documents(*texts), normalization_method=EmbeddingNormalizationMethod.l2()
    )
    told = await Told().listen(client.generate_embedding_batch(asked))
    assert told.last.kind is Kind.EMBEDDING_DONE
    found = {one.embedding_data.source_document_id: one.embedding_data for one in told.messages if one.embedding_data}
    assert set(found) == {f"doc-{number}" for number in range(100)}
    assert all(math.isclose(sum(x * x for x in one.embedding), 1, rel_tol=1e-5) for one in found.values())
    assert {one.normalization_method.variant for one in found.values()} == {"L2"}
    fox, cat, market = (found[f"doc-{number}"].embedding for number in range(3))
    assert sum(a * b for a, b in zip(fox, cat, strict=True)) > sum(a * b for a, b in zip(fox, market, strict=True))
    rms = EmbeddingNormalizationMethod.rms_norm(0.001)
    asked = GenerateEmbeddingBatchParams(input_batch=documents("a red fox"), normalization_method=rms)
    told = await Told().listen(client.generate_embedding_batch(asked))
    assert told.messages[0].embedding_data is not None
    assert told.messages[0].embedding_data.normalization_method == rms
    assert not math.isclose(sum(x * x for x in told.messages[0].embedding_data.embedding), 1, rel_tol=1e-2)


async def test_a_failed_embedding_is_the_last_line(client: ClientInference, fleet: Fleet) -> None:
    method = EmbeddingNormalizationMethod.none()
    asked = GenerateEmbeddingBatchParams(input_batch=documents("a", "[[fail]]"), normalization_method=method)
    told = await Told().listen(client.generate_embedding_batch(asked))
    assert (told.last.kind, told.last.error_code) == (Kind.SERVER_ERROR, 500)
    too_long = GenerateEmbeddingBatchParams(
        input_batch=documents(*["a"] * 40, "word " * 9000), normalization_method=method
    )
    told = await Told().listen(client.generate_embedding_batch(too_long))
    assert told.last.error_code == 400
    assert "input_batch[40]" in (told.last.error_message or "")
    await wait_until(fleet.is_idle)


async def test_what_no_agent_can_do_is_501(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    await new_agent(abilities="embed")
    status, lines = await post(balancer, CHAT, params("a"))
    assert (status, lines) == (501, ["Token generation is not enabled in the inference parameters"])


async def test_embeddings_where_there_are_none(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    await new_agent(abilities="generate")
    body = {"input_batch": [{"id": "a", "content": "b"}], "normalization_method": "L2"}
    status, lines = await post(balancer, "/api/v1/generate_embedding_batch", body)
    assert (status, lines) == (501, ["Embedding generation is not enabled in the inference parameters"])


async def test_a_header_that_is_wrong_comes_before_what_the_body_lacks(balancer: HttpBalancer) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    history = [{"role": "user", "content": parts}]
    body = {"add_generation_prompt": True, "conversation_history": history, "enable_thinking": False, "max_tokens": 1}
    async with balancer.http() as http:
        refused = await http.post(CHAT, json=body, headers={"X-Request-Class": "urgent"})
        told = await http.post(CHAT, json=body)
    assert refused.status_code == 400
    assert (told.status_code, "ImageDecodingFailed" in told.text) == (200, True)
