"""What a completion of a raw prompt looks like on the wire: chunks of a stream, and the whole answer.

A chunk has the shape of the whole answer. Its constant parts are encoded once a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from api.openai.completion import DONE, usage_object
from api.openai.completions_objects import TextChoice, TextCompletion, TextLogprobs, TextOrigin
from api.openai.errors import error_object
from api.openai.label import CompletionLabel
from api.openai.logprobs import LEAST, LogprobStream
from paddler.errors import PaddlerError
from paddler.wire.balancer import Finished, FinishReason, TokenLogprob, Tokens, Usage

_encode = msgspec.json.Encoder().encode


class CompletionStream:
    """Renders one request as `text/event-stream`. It does no I/O; every result is whole events.

    `earlier` is what its client has had, the echo with it. `index` is which choice it is."""

    def __init__(
        self, request_id: str, label: CompletionLabel, *, earlier: Iterable[Tokens] = (), index: int = 0
    ) -> None:
        had = tuple(earlier)
        self._echo = "" if had else label.echo
        self._num_echoed = len(label.echo)
        self._logprobs = LogprobStream(had) if label.has_logprobs else None
        self._include_usage = label.include_usage
        self._head = b"data: " + _encode(_origin(request_id, label))[:-1]
        self._before_text = self._head + b',"choices":[{"index":%d,"text":' % index
        self._tail = b',"usage":null}\n\n' if label.include_usage else b"}\n\n"
        self._after_text = b',"logprobs":null,"finish_reason":null}]' + self._tail

    def tokens(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """The events for newly released text; nothing for none. The first begins with the echo."""
        if self._logprobs is not None and (complete := self._logprobs.take(text, logprobs)):
            told = _encode(logprobs_object(complete, self._num_echoed))
            after = b',"logprobs":' + told + b',"finish_reason":null}]' + self._tail
            return self._before_text + _encode(self._begin() + text) + after
        if not text:
            return b""
        return self._before_text + _encode(self._begin() + text) + self._after_text

    def alive(self) -> bytes:
        """A chunk without text."""
        return self._before_text + b'""' + self._after_text

    def finished(self, reason: FinishReason, usage: Usage) -> bytes:
        """The last events of a stream that ended as asked."""
        return self.finish(reason) + self.over(usage)

    def finish(self, reason: FinishReason) -> bytes:
        """The last event of its choice."""
        last = b',"logprobs":null,"finish_reason":' + _encode(reason.value) + b"}]"
        return self._before_text + _encode(self._begin()) + last + self._tail

    def failed(self, error: PaddlerError) -> bytes:
        """The last events of a stream that failed after its headers went out."""
        return b"data: " + _encode(error_object(error)) + b"\n\n" + DONE

    def over(self, usage: Usage | None = None) -> bytes:
        """What to say when there is nothing more; `usage` for a client that has not had it yet."""
        if usage is None or not self._include_usage:
            return DONE
        return self._head + b',"choices":[],"usage":' + _encode(usage_object(usage)) + b"}\n\n" + DONE

    def _begin(self) -> str:
        echo, self._echo = self._echo, ""
        return echo


def text_completion(request_id: str, said: Sequence[Tokens], end: Finished, label: CompletionLabel) -> TextCompletion:
    """The whole answer of one request."""
    choice = completion_choice(0, said, end, label)
    return {**_origin(request_id, label), "choices": [choice], "usage": usage_object(end.usage)}


def whole_completion(
    request_id: str, choices: Sequence[TextChoice], usage: Usage, label: CompletionLabel
) -> TextCompletion:
    return {**_origin(request_id, label), "choices": list(choices), "usage": usage_object(usage)}


def completion_choice(index: int, said: Sequence[Tokens], end: Finished, label: CompletionLabel) -> TextChoice:
    logprobs = None
    if label.has_logprobs:
        stream = LogprobStream()
        complete = [one for frame in said for one in stream.take(frame.text, frame.logprobs)]
        logprobs = logprobs_object(complete, len(label.echo))
    text = label.echo + "".join(frame.text for frame in said)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": end.reason.value}


def logprobs_object(complete: Sequence[tuple[TokenLogprob, int]], num_before: int) -> TextLogprobs:
    """Four lists with an entry for each token. Its alternatives have itself among them; `num_before` characters of the
    text are the prompt's."""
    return {
        "tokens": [_name(entry.piece) for entry, _ in complete],
        "token_logprobs": [max(entry.logprob, LEAST) for entry, _ in complete],
        "top_logprobs": [_alternatives(entry) for entry, _ in complete],
        "text_offset": [num_before + start for _, start in complete],
    }


def _alternatives(entry: TokenLogprob) -> dict[str, float]:
    return {_name(piece): max(value, LEAST) for piece, value in (*entry.top, (entry.piece, entry.logprob))}


def _name(piece: bytes) -> str:
    """As OpenAI writes a token that is no text by itself: else several of them would be called alike."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _origin(request_id: str, label: CompletionLabel) -> TextOrigin:
    created, model = label.created, label.model
    return {"id": f"cmpl-{request_id}", "object": "text_completion", "created": created, "model": model}
