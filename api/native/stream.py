"""One generation as the envelopes of Paddler 4. It does no I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from api.native.counts import Kind, Piece, TokenCounts
from api.native.envelope import Envelopes
from api.native.label import NativeLabel
from api.native.objects import NativeUsage, ParsedArguments, ParsedCall
from paddler.chat_formats.ids import call_id
from paddler.chat_formats.reading import Arguments, CallBegun, Content, Delta, OutputReader, Reasoning
from paddler.jobs.reply import Reply
from paddler.wire.balancer import Finished

_encode = msgspec.json.Encoder().encode


class NativeStream:
    """A token envelope for each piece of text of a kind, and `Done` with the usage.

    A conversation's format is known: its text is content, reasoning or calls of tools, each call as an object
    `{"name": ..., "arguments": ...}` whatever the model's own notation is. Of a raw prompt nobody knows anything."""

    def __init__(self, envelopes: Envelopes, label: NativeLabel, reply: Reply) -> None:
        """`reply` may be followed from a later offset: what is before it has been told."""
        self._envelopes = envelopes
        self._label = label
        self._route = reply.route
        self._request_id = reply.request_id
        self._reader: OutputReader | None = None
        self._plain: Kind = "UndeterminableToken" if label.is_raw else "ContentToken"
        self._counts = TokenCounts(self._plain)
        self._num_seen = 0
        self._calls: list[tuple[str, str]] = []
        self._is_in_call = False
        for frame in reply.earlier:
            self._take(frame.text, len(frame.ids))

    def tokens(self, text: str) -> list[bytes]:
        """Envelopes for newly released text."""
        pieces = self._take(text, self._route.num_tokens - self._num_seen)
        return [self._envelopes.token(kind, said, self._route.agent_name) for kind, said in pieces]

    def finished(self, end: Finished) -> list[bytes]:
        """The last envelopes of a request that ended as asked."""
        pieces = [] if self._reader is None else self._pieces(self._reader.finish())
        self._counts.add(0, pieces)
        self._counts.close(end.usage.completion_tokens)
        name = self._route.agent_name
        lines = [self._envelopes.token(kind, said, name) for kind, said in pieces]
        if self._label.parses_calls and self._calls:
            lines.append(self._envelopes.told("ToolCallParsed", self._parsed(), name))
        lines.append(self._envelopes.told("Done", _encode({"usage": self._usage(end)}), name))
        return lines

    def _take(self, text: str, num_tokens: int) -> list[Piece]:
        self._num_seen += num_tokens
        format = self._route.format
        if format is None or self._label.is_raw:
            pieces: list[Piece] = [(self._plain, text)] if text else []
        else:
            self._reader = self._reader or OutputReader(format)
            pieces = self._pieces(self._reader.push(text))
        self._counts.add(num_tokens, pieces)
        return pieces

    def _pieces(
        self,
        deltas: Iterable[Delta],
    ) -> list[Piece]:
        assert self._reader is not None
        pieces: list[Piece] = []
        for delta in deltas:
            if self._is_in_call and not isinstance(delta, Arguments):
                self._is_in_call = False
                pieces.append(("ToolCallToken", "}"))
            match delta:
                case Content(text):
                    pieces.append(("ContentToken", text))
                case Reasoning(text):
                    pieces.append(("ReasoningToken", text))
                case CallBegun(_, name):
                    before = "\n" if self._calls else ""
                    pieces.append(("ToolCallToken", f'{before}{{"name": {_encode(name).decode()}, "arguments": '))
                    self._calls.append((name, ""))
                    self._is_in_call = True
                case Arguments(_, text):
                    name, arguments = self._calls[-1]
                    self._calls[-1] = name, arguments + text
                    if text:
                        pieces.append(("ToolCallToken", text))
        if self._is_in_call and self._reader.has_whole_calls:
            self._is_in_call = False
            pieces.append(("ToolCallToken", "}"))
        return _joined(pieces)

    def _parsed(self) -> bytes:
        calls: list[ParsedCall] = [
            {"id": call_id(self._request_id, index), "name": name, "arguments": _arguments(text)}
            for index, (name, text) in enumerate(self._calls)
        ]
        return _encode(calls)

    def _usage(self, end: Finished) -> NativeUsage:
        numbers = self._counts.numbers
        return {
            "prompt_tokens": end.usage.prompt_tokens,
            "cached_prompt_tokens": end.usage.cached_tokens,
            "input_image_tokens": 0,
            "input_audio_tokens": 0,
            "content_tokens": numbers["ContentToken"],
            "reasoning_tokens": numbers["ReasoningToken"],
            "tool_call_tokens": numbers["ToolCallToken"],
            "undeterminable_tokens": numbers["UndeterminableToken"],
        }


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind are one envelope."""
    joined: list[Piece] = []
    for kind, text in pieces:
        if joined and joined[-1][0] == kind:
            joined[-1] = kind, joined[-1][1] + text
        else:
            joined.append((kind, text))
    return joined


def _arguments(text: str) -> ParsedArguments:
    """A call may have been cut off in the middle."""
    try:
        return {"ValidJson": msgspec.json.decode(text)}
    except (msgspec.DecodeError, RecursionError):
        return {"InvalidJson": text}
