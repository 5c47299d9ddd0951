"""An answer as Anthropic's events: blocks that begin, grow and end, between the beginning and the end of a message.

What a block's deltas have in common is encoded once, when it begins; of a frame only the text itself is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from api.anthropic.errors import error_body
from api.anthropic.events import BlockDelta, End, MessageDelta, MessageStart, SignatureDelta
from api.anthropic.label import MessageLabel
from api.anthropic.objects import (
    SIGNATURE,
    BlockOut,
    MessageOut,
    TextOut,
    ThinkingOut,
    ToolUseOut,
    message_id,
    stop_reason_of,
    tool_use_id,
    usage_out,
)
from api.anthropic.words import own_words
from paddler.chat_formats.reading import Arguments, CallBegun, Content, Delta, OutputReader, Reasoning
from paddler.errors import PaddlerError
from paddler.jobs.gateway import Reply
from paddler.jobs.reply import Route
from paddler.wire.balancer import FinishReason, TextFormat, TokenLogprob, Tokens, Usage

_encode = msgspec.json.Encoder().encode

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_AFTER = b"}}\n\n"
_DELTAS = {
    TextOut: b'{"type":"text_delta","text":',
    ThinkingOut: b'{"type":"thinking_delta","thinking":',
    ToolUseOut: b'{"type":"input_json_delta","partial_json":',
}


class MessageStream:
    """Renders one request as `text/event-stream`. It does no I/O; every result is whole events.

    `route` will know the format of the text before there is any; without one all of it is text. `earlier` is what its
    client has had: it goes on behind that."""

    def __init__(
        self, request_id: str, label: MessageLabel, *, route: Route | None = None, earlier: Iterable[Tokens] = ()
    ) -> None:
        self._request_id = request_id
        self._label = label
        self._route = route or Route()
        self._reader: OutputReader | None = None
        self._is_begun = False
        self._kind: type[BlockOut] | None = None
        self._index = -1
        self._before = b""
        """Of each delta of the block that is open."""
        for frame in earlier:
            self.tokens(frame.text)

    def tokens(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:  # noqa: ARG002  # none are asked for
        """The events for newly released text; nothing for none. The first have the beginning of the message before
        them."""
        if self._route.format is None:
            events = self._grow(TextOut, text) if text else b""
        else:
            events = self._events(self._read(self._route.format).push(text))
        return self._begin() + events if events else b""

    def finished(self, reason: FinishReason, usage: Usage) -> bytes:
        """The last events of a stream that ended as asked."""
        rest, has_calls = b"", False
        if self._route.format is not None:
            reader = self._read(self._route.format)
            rest = self._events(reader.finish())
            has_calls = reader.has_whole_calls
        stop_reason, stop = stop_reason_of(
            reason, self._route.stop, usage.completion_tokens, self._label, has_calls=has_calls
        )
        end = MessageDelta(End(stop_reason, stop), usage_out(usage))
        return self._begin() + rest + self._end() + b"event: message_delta\ndata: " + _encode(end) + b"\n\n" + STOP

    def failed(self, error: PaddlerError) -> bytes:
        """The last event of a stream that failed after its headers went out."""
        body = error_body(own_words(error, self._label.images), self._request_id)
        return b"event: error\ndata: " + _encode(body) + b"\n\n"

    def alive(self) -> bytes:
        """Nothing before the message has begun, which is the first event that clients expect."""
        return PING if self._is_begun else b""

    def over(self) -> bytes:
        """What to say when there is nothing more."""
        return STOP

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        usage = Usage(self._route.prompt_tokens or 0, 0, self._route.cached_tokens or 0)
        message = MessageOut(
            id=message_id(self._request_id), model=self._label.model, content=[], usage=usage_out(usage)
        )
        return b"event: message_start\ndata: " + _encode(MessageStart(message)) + b"\n\n" + PING

    def _read(self, format: TextFormat) -> OutputReader:
        if self._reader is None:
            self._reader = OutputReader(format)
        return self._reader

    def _events(self, deltas: Iterable[Delta]) -> bytes:
        events: list[bytes] = []
        for delta in deltas:
            match delta:
                case Content(text):
                    events.append(self._grow(TextOut, text))
                case Reasoning(text):
                    events.append(self._grow(ThinkingOut, "" if self._label.hides_thinking else text))
                case CallBegun(index, name):
                    events.append(self._open(ToolUseOut(tool_use_id(self._request_id, index), name)))
                case Arguments(_, text):
                    events.append(self._delta(text))
                case _:
                    assert_never(delta)
        return b"".join(events)

    def _grow(self, kind: type[TextOut | ThinkingOut], text: str) -> bytes:
        """A delta of the open block, or of a new one if that is of another kind."""
        begin = b"" if self._kind is kind else self._open(kind())
        return begin + self._delta(text) if text else begin

    def _delta(self, text: str) -> bytes:
        return self._before + _encode(text) + _AFTER

    def _open(self, block: BlockOut) -> bytes:
        end = self._end()
        self._index += 1
        self._kind = type(block)
        place = b'"index":%d,' % self._index
        delta = b'event: content_block_delta\ndata: {"type":"content_block_delta",' + place + b'"delta":'
        self._before = delta + _DELTAS[self._kind]
        start = b'event: content_block_start\ndata: {"type":"content_block_start",' + place + b'"content_block":'
        return end + start + _encode(block) + b"}\n\n"

    def _end(self) -> bytes:
        """The end of the open block, if there is one."""
        kind, self._kind = self._kind, None
        if kind is None:
            return b""
        stop = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % self._index
        if kind is not ThinkingOut:
            return stop
        delta = BlockDelta(self._index, SignatureDelta(SIGNATURE))
        return b"event: content_block_delta\ndata: " + _encode(delta) + b"\n\n" + stop


def message_stream(reply: Reply, label: MessageLabel) -> MessageStream:
    """From where the reply is followed on."""
    return MessageStream(reply.request_id, label, route=reply.route, earlier=reply.earlier)
