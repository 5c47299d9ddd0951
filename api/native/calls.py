"""From the params of a native request to a payload for the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from api.images import read_image_url
from api.native.errors import ToldInStream, native_words
from api.native.grammar import read_grammar
from api.native.label import NativeLabel
from api.native.schema import ConversationMessage, ConversationParams, RawPromptParams, TextContent
from api.native.tools import read_native_tools
from api.validation import decode_body
from paddler.desired.sampling import AskedSampling
from paddler.errors import ImageDecodingFailed, InvalidField
from paddler.images import check_images
from paddler.wire.agent import Generate, ImagePart, Message, TextPart

MAX_AT_ONCE = 8192
"""Bytes that are read while others wait: schemas of so many take up to 50 ms."""

CONVERSATION_DECODER = msgspec.json.Decoder(ConversationParams)
RAW_PROMPT_DECODER = msgspec.json.Decoder(RawPromptParams)


class NativeCall(Struct, frozen=True):
    """A checked request. Paddler 4 has no `model` in it, and no parameters of sampling: they are those of the pool."""

    payload: Generate
    label: NativeLabel


Read = Callable[[bytes, int], NativeCall]


async def receive_call(read: Read, params: bytes, random_seed: int) -> NativeCall:
    """In a thread if it may take long. Raises as `read`."""
    if len(params) <= MAX_AT_ONCE:
        return read(params, random_seed)
    return await asyncio.to_thread(read, params, random_seed)


def read_conversation(params: bytes, random_seed: int) -> NativeCall:
    """`ContinueFromConversationHistory`. Raises `InvalidField`, `ClientException` for bytes that are no JSON, and
    `ToldInStream`."""
    asked = decode_body(params, CONVERSATION_DECODER, {})
    tools = read_native_tools(asked.tools)
    if tools and asked.grammar is not None:
        raise InvalidField("`tools` and `grammar` exclude each other; leave one out.", param="grammar")
    payload = Generate(
        messages=_messages(asked.conversation_history),
        max_tokens=max(asked.max_tokens, 0),
        sampling=AskedSampling(seed=random_seed),
        add_generation_prompt=asked.add_generation_prompt,
        grammar=read_grammar(asked.grammar),
        tools=tools,
        enable_thinking=asked.enable_thinking,
    )
    try:
        check_images(payload)
    except ImageDecodingFailed as error:
        raise ToldInStream("ImageDecodingFailed", native_words(error.message)) from None
    return NativeCall(payload, NativeLabel(parses_calls=asked.parse_tool_calls))


def read_raw_prompt(params: bytes, random_seed: int) -> NativeCall:
    """`ContinueFromRawPrompt`. Raises as `read_conversation`."""
    asked = decode_body(params, RAW_PROMPT_DECODER, {})
    payload = Generate(
        prompt=asked.raw_prompt,
        max_tokens=max(asked.max_tokens, 0),
        sampling=AskedSampling(seed=random_seed),
        grammar=read_grammar(asked.grammar),
    )
    return NativeCall(payload, NativeLabel(is_raw=True))


def _messages(history: Sequence[ConversationMessage]) -> tuple[Message, ...]:
    return tuple(_message(f"conversation_history[{index}]", one) for index, one in enumerate(history))


def _message(param: str, message: ConversationMessage) -> Message:
    if isinstance(message.content, str):
        return Message(message.role, message.content)
    parts = tuple(_part(f"{param}.content[{index}]", part) for index, part in enumerate(message.content))
    # Joined with a newline, as llama.cpp's server does for templates that take strings.
    content = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    has_image = any(isinstance(part, ImagePart) for part in parts)
    return Message(message.role, content, parts=parts if has_image else ())


def _part(param: str, part: Any) -> TextPart | ImagePart:
    if isinstance(part, TextContent):
        return TextPart(part.text)
    try:
        return ImagePart(read_image_url(param, part.image_url.url))
    except (InvalidField, ImageDecodingFailed) as error:
        raise ToldInStream("ImageDecodingFailed", error.message) from None
