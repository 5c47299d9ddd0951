"""Whoever has a program for Paddler 4 points it here and changes nothing."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator

import pytest
from native_harness import Told, conversation, following, inference, management
from paddler_client import ClientInference, ClientManagement
from paddler_client.agent_desired_model import AgentDesiredModel
from paddler_client.balancer_desired_state import BalancerDesiredState
from paddler_client.continue_from_conversation_history_params import ContinueFromConversationHistoryParams
from paddler_client.continue_from_raw_prompt_params import ContinueFromRawPromptParams
from paddler_client.conversation_message import ConversationMessage
from paddler_client.conversation_message_content_part import ImageUrlContentPart
from paddler_client.embedding_input_document import EmbeddingInputDocument
from paddler_client.embedding_normalization_method import EmbeddingNormalizationMethod
from paddler_client.generate_embedding_batch_params import GenerateEmbeddingBatchParams
from paddler_client.grammar_constraint import GbnfGrammarConstraint, JsonSchemaGrammarConstraint
from paddler_client.image_url import ImageUrl
from paddler_client.inference_message import InferenceMessageKind as Kind
from paddler_client.inference_parameters import InferenceParameters
from paddler_client.tool import Function, Tool
from paddler_client.url_model_reference import UrlModelReference
from paddler_client.validated_parameters_schema import ValidatedParametersSchema
from story_harness import Queue
from up_harness import Up

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
async def old(up: Up) -> AsyncIterator[ClientInference]:
    """The published client of Paddler 4, for `up`."""
    async with inference(up.inference_url) as client:
        yield client


@pytest.fixture
async def operator(up: Up) -> AsyncIterator[ClientManagement]:
    async with management(up.management_url) as client:
        yield client


async def test_four_at_once_over_its_sockets(old: ClientInference) -> None:
    """A request each; the usage at the end is real, also what the cache saved of the prompt."""

    async def ask(question: str) -> Told:
        return await Told().listen(await old.continue_from_conversation_history(conversation(question, max_tokens=24)))

    first = await ask("Name three colours.")
    answers = await asyncio.gather(*map(ask, ["Name three colours.", "Count to five.", "Say hello.", "Who are you?"]))
    for told in (first, *answers):
        assert told.last.is_done
        assert told.last.summary is not None
        usage = told.last.summary.usage
        assert told.text(Kind.CONTENT_TOKEN) == told.text() != ""
        assert 0 < usage.content_tokens == usage.completion_tokens <= 24
    assert answers[0].last.summary is not None
    usage = answers[0].last.summary.usage
    assert 0 < usage.cached_prompt_tokens < usage.prompt_tokens


async def test_an_answer_in_a_form(old: ClientInference) -> None:
    """By a JSON schema, or by a grammar of one's own."""
    schema = '{"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}'
    asked = conversation("A colour?", grammar=JsonSchemaGrammarConstraint(schema_value=schema), max_tokens=60)
    told = await Told().listen(old.post_continue_from_conversation_history(asked))
    assert json.loads(told.text())["colour"] in ("red", "blue")
    gbnf = GbnfGrammarConstraint(grammar='root ::= "unused"\nanswer ::= "yes" | "no"', root="answer")
    stream = await old.continue_from_raw_prompt(
        ContinueFromRawPromptParams(raw_prompt="Is water wet? Answer:", max_tokens=10, grammar=gbnf)
    )
    told = await Told().listen(stream)
    assert told.text(Kind.UNDETERMINABLE_TOKEN) in ("yes", "no")


async def test_tools_are_told_of(old: ClientInference) -> None:
    """Whether it calls one is the model's affair; that the request goes its way is ours."""
    parameters = ValidatedParametersSchema(type="object", properties={"city": {"type": "string"}}, required=["city"])
    tool = Tool(function=Function(name="weather", description="The weather of a city.", parameters=parameters))
    plain = conversation("Hi", max_tokens=16)
    with_tool = conversation("Hi", max_tokens=16, tools=[tool])
    told, other = [await Told().listen(old.post_continue_from_conversation_history(one)) for one in (plain, with_tool)]
    assert told.last.summary is not None
    assert other.last.summary is not None
    assert other.last.summary.usage.prompt_tokens > told.last.summary.usage.prompt_tokens + 40


async def test_an_image_to_a_model_without_eyes(old: ClientInference) -> None:
    told = await Told().listen(old.post_continue_from_conversation_history(_with_image()))
    assert [message.kind for message in told.messages] == [Kind.MULTIMODAL_NOT_SUPPORTED]
    assert "conversation_history[0].content[0]" in (told.last.error_message or "")


def _with_image() -> ContinueFromConversationHistoryParams:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    part = ImageUrlContentPart(image_url=ImageUrl(url=f"data:image/png;base64,{pixel}"))
    return conversation("").model_copy(
        update={"conversation_history": [ConversationMessage(role="user", content=[part])]}
    )


async def test_a_batch_of_embeddings(old: ClientInference) -> None:
    texts = ["A cat sits on the mat.", "A kitten is sitting on a rug.", "The stock market fell sharply on Tuesday."]
    batch = [EmbeddingInputDocument(id=text[:5], content=text) for text in texts]
    method = EmbeddingNormalizationMethod.l2()
    asked = GenerateEmbeddingBatchParams(input_batch=batch, normalization_method=method)
    told = await Told().listen(old.generate_embedding_batch(asked))
    assert told.last.kind is Kind.EMBEDDING_DONE
    found = [one.embedding_data for one in told.messages if one.embedding_data is not None]
    assert {one.source_document_id for one in found} == {text[:5] for text in texts}
    assert all(math.isclose(sum(x * x for x in one.embedding), 1, rel_tol=1e-4) for one in found)


async def test_what_the_pool_is_to_serve(operator: ClientManagement) -> None:
    """The desired state of Paddler 4. Its agents have a model by flag, and keep that."""
    before = await operator.get_balancer_desired_state()
    wanted = BalancerDesiredState(
        model=AgentDesiredModel.from_url(UrlModelReference(url="http://127.0.0.1:1/m.gguf")),
        inference_parameters=InferenceParameters(enable_embeddings=True),
    )
    await operator.put_balancer_desired_state(wanted)
    assert await operator.get_balancer_desired_state() == wanted
    await operator.put_balancer_desired_state(before)
    [agent] = (await operator.get_agents()).agents
    assert agent.slots_total == 4


async def test_the_fleet_as_its_operator_sees_it(
    old: ClientInference, operator: ClientManagement, queue: Queue
) -> None:
    """Snapshots as they change: a slot is busy while a story is told, and free when its listener has gone."""
    [agent] = (await operator.get_agents()).agents
    assert (agent.slots_total, agent.desired_slots_total, agent.slots_processing) == (4, 4, 0)
    assert (agent.model_path or "").endswith(".gguf")
    assert "paddler_slots_total 4" in await operator.get_metrics()
    async with following(operator.agents_stream()) as stream:
        await anext(stream)
        await old.continue_from_conversation_history(conversation("Tell me a long story.", max_tokens=2000))
        while (await anext(stream)).agents[0].slots_processing == 0:
            pass
        await old.close()
        await wait_until(queue.is_empty)
        while (await anext(stream)).agents[0].slots_processing:
            pass
