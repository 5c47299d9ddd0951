"""`POST /v1/messages` and `/v1/messages/count_tokens`: from a body to a payload for the queue."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, structs

from api.anthropic.label import MessageLabel
from api.anthropic.messages import Conversation
from api.anthropic.schema import NOT_YET, CountRequest, MessageRequest, Thinking
from api.anthropic.tools import read_tool_choice, read_tools
from api.anthropic.words import own_words
from api.structure import schema_grammar
from api.validation import decode_body
from paddler.chat_formats.variables import ENABLE_THINKING
from paddler.desired.sampling import AskedSampling, asked_sampling
from paddler.errors import InvalidField, PaddlerError
from paddler.images import check_images, images_of
from paddler.wire.agent import Generate

DECODER = msgspec.json.Decoder(MessageRequest)
COUNT_DECODER = msgspec.json.Decoder(CountRequest)


class CountCall(Struct, frozen=True):
    """A checked request to count: its prompt, and the names of the images in it."""

    model: str
    prompt: Generate
    images: tuple[tuple[str, str], ...]


class MessageCall(Struct, frozen=True):
    """A checked request: what to generate, and how the client wants to receive it."""

    payload: Generate
    label: MessageLabel
    stream: bool


def read_message_call(body: bytes, random_seed: int) -> MessageCall:
    """Decode, check and translate a body; it is drawn with `random_seed` (32 bits).

    Raises `InvalidField`, `ImageDecodingFailed`, or `ClientException` for bytes that are no JSON.
    """
    request = decode_body(body, DECODER, NOT_YET)
    prompt, images = _read_prompt(request)
    payload = structs.replace(
        prompt,
        max_tokens=request.max_tokens,
        stop=tuple(dict.fromkeys(request.stop_sequences or ())),
        sampling=_sampling(request, random_seed),
    )
    hides_thinking = request.thinking is not None and request.thinking.display == "omitted"
    label = MessageLabel(request.model, request.max_tokens, hides_thinking, images)
    return MessageCall(payload, label, bool(request.stream))


def read_count_call(body: bytes) -> CountCall:
    """As `read_message_call`; the prompt is that of a message with the same fields."""
    request = decode_body(body, COUNT_DECODER, NOT_YET)
    return CountCall(request.model, *_read_prompt(request))


def _read_prompt(request: CountRequest) -> tuple[Generate, tuple[tuple[str, str], ...]]:
    """What of a payload the prompt depends on, and the names of the images in it."""
    conversation = Conversation()
    conversation.read(request.system, request.messages)
    tools = read_tools(request.tools)
    tool_choice, tool_name = read_tool_choice(request.tool_choice, tools)
    payload = Generate(
        messages=tuple(conversation.messages),
        beginning=conversation.beginning,
        grammar=_grammar(request),
        tools=tools,
        tool_choice=tool_choice,
        tool_name=tool_name,
        parallel_tool_calls=request.tool_choice is None or not request.tool_choice.disable_parallel_tool_use,
        template_kwargs=_variables(request.thinking),
    )
    if payload.callable_tools and payload.grammar is not None:
        raise InvalidField(
            "`tools` and a form of the answer (`output_config.format`) exclude each other; leave one out, or set "
            "`tool_choice` to `none`.",
            param="tools",
        )
    if payload.beginning and payload.grammar is not None:
        raise InvalidField(
            "`output_config.format` is about a whole answer: the last message must not be one of the assistant.",
            param="output_config.format",
        )
    images = tuple(zip((name for name, _ in images_of(payload)), conversation.images, strict=True))
    try:
        check_images(payload)
    except PaddlerError as error:
        raise own_words(error, images) from None
    return payload, images


def _grammar(request: CountRequest) -> str | None:
    config = request.output_config.format if request.output_config is not None else None
    if config is not None and request.output_format is not None:
        raise InvalidField(
            "`output_format` and `output_config.format` exclude each other; send only `output_config`.",
            param="output_format",
        )
    if config is not None:
        return schema_grammar(config.schema, "output_config.format.schema")
    if request.output_format is not None:
        return schema_grammar(request.output_format.schema, "output_format.schema")
    return None


def _variables(thinking: Thinking | None) -> str:
    """`adaptive` is what the model's template does if nobody says anything."""
    if thinking is None:
        return ""
    if thinking.type != "enabled" and thinking.budget_tokens is not None:
        raise InvalidField("`thinking.budget_tokens` goes with the type `enabled`.", param="thinking.budget_tokens")
    if thinking.type == "disabled" and thinking.display is not None:
        raise InvalidField("`thinking.display` does not go with the type `disabled`.", param="thinking.display")
    if thinking.type == "adaptive":
        return ""
    return msgspec.json.encode({ENABLE_THINKING: thinking.type == "enabled"}).decode()


def _sampling(request: MessageRequest, random_seed: int) -> AskedSampling:
    """What the request leaves out is the pool's."""
    given: dict[str, Any] = {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
    return asked_sampling(random_seed, given)
