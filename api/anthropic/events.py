"""The events of a message's stream, as types: those that a stream encodes whole, and the others for `/openapi.json`."""

from __future__ import annotations

from msgspec import Struct

from api.anthropic.errors import ErrorBody
from api.anthropic.objects import BlockOut, MessageOut, StopReason, UsageOut


class MessageStart(Struct, frozen=True, tag="message_start"):
    message: MessageOut


class Ping(Struct, frozen=True, tag="ping"):
    """The stream is alive."""


class BlockStart(Struct, frozen=True, tag="content_block_start"):
    index: int
    content_block: BlockOut


class TextDelta(Struct, frozen=True, tag="text_delta"):
    text: str


class ThinkingDelta(Struct, frozen=True, tag="thinking_delta"):
    thinking: str


class InputDelta(Struct, frozen=True, tag="input_json_delta"):
    partial_json: str


class SignatureDelta(Struct, frozen=True, tag="signature_delta"):
    signature: str


class BlockDelta(Struct, frozen=True, tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | InputDelta | SignatureDelta


class BlockStop(Struct, frozen=True, tag="content_block_stop"):
    index: int


class End(Struct, frozen=True):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, frozen=True, tag="message_delta"):
    delta: End
    usage: UsageOut


class MessageStop(Struct, frozen=True, tag="message_stop"):
    """The last event."""


EVENTS = (MessageStart, Ping, BlockStart, BlockDelta, BlockStop, MessageDelta, MessageStop, ErrorBody)
