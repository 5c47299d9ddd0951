"""What a chat completion looks like on the wire: chunks of a stream, and the whole answer.

Chunks are put together from constant parts that are encoded once a stream; only the text itself is encoded
for every frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from api.openai.errors import error_object
from api.openai.label import ChatLabel
from api.openai.logprobs import LogprobStream, logprobs_object
from api.openai.objects import ChatCompletion, ChoiceObject, CompletionUsage, MessageObject
from api.openai.said import delta_object, finish_reason_of, message_object
from paddler.chat_formats.reading import Delta, OutputReader, read_all
from paddler.errors import PaddlerError
from paddler.jobs.reply import Route
from paddler.wire.balancer import Finished, FinishReason, TextFormat, TokenLogprob, Tokens, Usage

_encode = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"
_AFTER_DELTA = b',"logprobs":null,"finish_reason":null}]'
_ROLE = b'{"role":"assistant","content":""}' + _AFTER_DELTA
_ROLE_ALONE = b'{"role":"assistant","content":null}' + _AFTER_DELTA


class ChatStream:
    """Renders one request as `text/event-stream`. It does no I/O; every result is whole events.

    `is_begun`: it goes on from a later offset, its client has had the role, and `earlier`. `route` will know the format
    of the text before there is any; without one all of it is content. `index` is which choice it is of the chat
    completion; calls of tools are named after the request `calls_of`, or after this one."""

    def __init__(
        self,
        request_id: str,
        label: ChatLabel,
        *,
        is_begun: bool = False,
        earlier: Iterable[Tokens] = (),
        index: int = 0,
        route: Route | None = None,
        calls_of: str | None = None,
    ) -> None:
        self._calls_of = calls_of or request_id
        self._route = route or Route()
        self._reader: OutputReader | None = None
        self._earlier = tuple(earlier)
        head = _encode(
            {
                "id": f"chatcmpl-{request_id}",
                "object": "chat.completion.chunk",
                "created": label.created,
                "model": label.model,
            }
        )
        self._head = b"data: " + head[:-1]
        self._include_usage = label.include_usage
        # With `include_usage` every chunk but the last says that it has none.
        self._tail = b',"usage":null}\n\n' if label.include_usage else b"}\n\n"
        self._before_delta = self._head + b',"choices":[{"index":%d,"delta":' % index
        self._before_text = self._before_delta + b'{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}]' + self._tail
        self._is_begun = is_begun
        self._logprobs = LogprobStream(self._earlier) if label.has_logprobs else None

    def tokens(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """The events for newly released text; nothing for none. The first has the role before it."""
        if self._route.format is not None:
            return self._events(self._read(self._route.format).push(text))
        if self._logprobs is not None and (content := self._logprobs.push(text, logprobs)):
            told = b'},"logprobs":' + _encode(logprobs_object(content)) + b',"finish_reason":null}]'
            return self._begin() + self._before_text + _encode(text) + told + self._tail
        if not text:
            return b""
        return self._begin() + self._before_text + _encode(text) + self._after_text

    def alive(self) -> bytes:
        """A chunk without text, whatever has been said."""
        return self._before_text + b'""' + self._after_text

    def finished(self, reason: FinishReason, usage: Usage) -> bytes:
        """The last events of a stream that ended as asked."""
        return self.finish(reason) + self.over(usage)

    def finish(self, reason: FinishReason) -> bytes:
        """The last events of its choice."""
        before = b""
        finish_reason = finish_reason_of(reason, has_calls=False)
        if self._route.format is not None:
            reader = self._read(self._route.format)
            before = self._events(reader.finish())
            finish_reason = finish_reason_of(reason, has_calls=reader.has_whole_calls)
        last = b'{},"logprobs":null,"finish_reason":' + _encode(finish_reason) + b"}]"
        return before + self._begin() + self._before_delta + last + self._tail

    def failed(self, error: PaddlerError) -> bytes:
        """The last events of a stream that failed after its headers went out."""
        return b"data: " + _encode(error_object(error)) + b"\n\n" + DONE

    def over(self, usage: Usage | None = None) -> bytes:
        """What to say when there is nothing more; `usage` for a client that has not had it yet."""
        if usage is None or not self._include_usage:
            return DONE
        return self._head + b',"choices":[],"usage":' + _encode(usage_object(usage)) + b"}\n\n" + DONE

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        role = _ROLE if self._route.format is None else _ROLE_ALONE
        return self._before_delta + role + self._tail

    def _read(self, format: TextFormat) -> OutputReader:
        if self._reader is None:
            self._reader = OutputReader(format)
            for frame in self._earlier:
                self._reader.push(frame.text)
        return self._reader

    def _events(self, deltas: Iterable[Delta]) -> bytes:
        chunks = [
            self._before_delta + _encode(delta_object(delta, self._calls_of)) + _AFTER_DELTA + self._tail
            for delta in deltas
        ]
        return self._begin() + b"".join(chunks) if chunks else b""


def chat_completion(
    request_id: str, said: Sequence[Tokens], end: Finished, label: ChatLabel, format: TextFormat | None = None
) -> ChatCompletion:
    """The whole answer; `format` is that of its text."""
    return {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": label.created,
        "model": label.model,
        "choices": [choice_object(request_id, said, end, label, format)],
        "usage": usage_object(end.usage),
    }


def choice_object(
    request_id: str, said: Sequence[Tokens], end: Finished, label: ChatLabel, format: TextFormat | None = None
) -> ChoiceObject:
    """The one choice of a request."""
    logprobs = None
    if label.has_logprobs:
        stream = LogprobStream()
        logprobs = logprobs_object([one for frame in said for one in stream.push(frame.text, frame.logprobs)])
    texts = [frame.text for frame in said]
    if format is None:
        finish_reason = finish_reason_of(end.reason, has_calls=False)
        message: MessageObject = {"role": "assistant", "content": "".join(texts), "refusal": None}
    else:
        whole = read_all(format, texts)
        message = message_object(whole, request_id)
        finish_reason = finish_reason_of(end.reason, has_calls=whole.has_whole_calls)
    return {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}


def usage_object(usage: Usage) -> CompletionUsage:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
