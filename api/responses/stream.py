"""A response as `text/event-stream`.

Events are numbered from 0 on. Their order and numbers are a function of the journal's frames, whoever renders them, so
that a client may go on behind a number at any balancer; only `error`, which tells of a balancer's own trouble, is no
part of that order and repeats the number before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from api.openai.label import ResponseLabel
from api.responses.objects import (
    Rendered,
    TextObject,
    ThoughtObject,
    Told,
    failure_object,
    item_object,
    item_objects,
    told_finished,
)
from api.responses.output import Begun, Ended, Grown, Output, OutputItem, Step
from api.responses.told import told_of_response
from paddler.errors import PaddlerError, RequestCancelled
from paddler.jobs.reply import Route
from paddler.wire.balancer import FinishReason, TokenLogprob, Tokens, Usage

_encode = msgspec.json.Encoder().encode

_DELTAS = {
    "message": b"response.output_text.delta",
    "reasoning": b"response.reasoning_text.delta",
    "function_call": b"response.function_call_arguments.delta",
}
_DELTA = b',"delta":'


class ResponseStream:
    """Renders one request. It does no I/O; every result is whole events.

    `after` is the number of the last event that its client has had, -1 for none. `earlier` are the frames that were
    rendered before, from whose end it goes on. `route` will know the format of the text before there is any.
    `has_failed` tells whether an error is the end of the request, for everybody, or trouble of this balancer."""

    def __init__(
        self,
        request_id: str,
        label: ResponseLabel,
        *,
        after: int = -1,
        is_begun: bool = False,
        earlier: Iterable[Tokens] = (),
        route: Route | None = None,
        has_failed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._request_id = request_id
        self._label = label
        self._route = route or Route()
        self._earlier = tuple(earlier)
        self._has_failed = has_failed
        self._rendered = Rendered(request_id, label)
        self._output: Output | None = None
        self._after = after
        self._next = 0
        self._is_created = self._is_begun = False
        self._texts: list[str] | None = None
        self._delta = b""
        self._after_delta = b""
        if is_begun:
            self._begin()

    def tokens(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """The events for newly released text; for none, what stands before any, once."""
        if self._texts is not None and text:
            # Nearly all there are: more of the one message of a plain answer.
            self._texts.append(text)
            number = self._next
            self._next = number + 1
            if number <= self._after:
                return b""
            return b"%b%d%b%b%b" % (self._delta, number, _DELTA, _encode(text), self._after_delta)
        if not text and not logprobs:
            return self._create()
        return self._begin() + self._events(self._read().push(text, logprobs, self._route.num_tokens))

    def finished(self, reason: FinishReason, usage: Usage) -> bytes:
        """The last events of a stream that ended as asked."""
        events = self._begin()
        output = self._read()
        events += self._events(output.finish(is_whole=reason is FinishReason.STOP))
        kind = b"response.completed" if reason is FinishReason.STOP else b"response.incomplete"
        return events + self._told(kind, told_finished(output, reason, usage))

    def failed(self, error: PaddlerError) -> bytes:
        """The last events of a stream that failed after its headers went out."""
        error = told_of_response(error)
        events = self._begin()
        is_cancelled = isinstance(error, RequestCancelled)
        if not is_cancelled and not self._has_failed():
            trouble = {"sequence_number": self._next - 1, "code": error.code, "message": error.message}
            body = {"type": "error"} | trouble | {"param": error.param}
            return events + b"event: error\ndata: " + _encode(body) + b"\n\n"
        output = self._read()
        output.break_off()
        items = item_objects(output.items)
        if is_cancelled:
            return events + self._told(b"response.incomplete", Told("cancelled", items))
        return events + self._told(b"response.failed", Told("failed", items, error=failure_object(error)))

    def over(self) -> bytes:
        """Nothing more: a response ends with its last event."""
        return b""

    def _create(self) -> bytes:
        if self._is_created:
            return b""
        self._is_created = True
        told = Told("queued" if self._label.is_background else "in_progress")
        events = self._told(b"response.created", told)
        return events + self._told(b"response.queued", told) if self._label.is_background else events

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        return self._create() + self._told(b"response.in_progress", Told("in_progress"))

    def _read(self) -> Output:
        if self._output is None:
            label = self._label
            self._output = Output(self._request_id, self._route.format, has_logprobs=label.has_logprobs)
            num_tokens = 0
            for frame in self._earlier:
                num_tokens += len(frame.ids)
                self._events(self._output.push(frame.text, frame.logprobs, num_tokens))
        return self._output

    def _events(self, steps: Iterable[Step]) -> bytes:
        events = b""
        for step in steps:
            match step:
                case Grown():
                    events += self._grown(step)
                case Begun(item):
                    events += self._begun(item)
                case Ended(item):
                    events += self._ended(item)
        return events

    def _begun(self, item: OutputItem) -> bytes:
        added = b'"output_index":%d,"item":' % item.index + _encode(item_object(item, is_begun=True))
        events = self._event(b"response.output_item.added", added)
        if item.kind == "function_call":
            place = _place(item)
        else:
            part = TextObject("") if item.kind == "message" else ThoughtObject("")
            place = _place(item) + b',"content_index":0'
            events += self._event(b"response.content_part.added", place + b',"part":' + _encode(part))
        kind = _DELTAS[item.kind]
        # Of every delta of this item all but its number, its text and its log probabilities.
        self._delta = b"event: " + kind + b'\ndata: {"type":"' + kind + b'",' + place + b',"sequence_number":'
        self._after_delta = b"}\n\n" if item.kind != "message" else b',"logprobs":[]}\n\n'
        if self._route.format is None and not self._label.has_logprobs:
            self._texts = item.texts
        return events

    def _grown(self, step: Grown) -> bytes:
        number = self._next
        self._next += 1
        if number <= self._after:
            return b""
        told = step.logprobs
        last = b',"logprobs":' + _encode(told) + b"}\n\n" if told else self._after_delta
        return b"%b%d%b%b%b" % (self._delta, number, _DELTA, _encode(step.text), last)

    def _ended(self, item: OutputItem) -> bytes:
        place, text = _place(item), _encode(item.text)
        match item.kind:
            case "function_call":
                done = place + b',"name":' + _encode(item.name) + b',"arguments":' + text
                events = self._event(b"response.function_call_arguments.done", done)
            case "message":
                place += b',"content_index":0'
                done = place + b',"text":' + text + b',"logprobs":' + _encode(item.logprobs)
                events = self._event(b"response.output_text.done", done)
                part = _encode(TextObject(item.text, (), item.logprobs))
                events += self._event(b"response.content_part.done", place + b',"part":' + part)
            case "reasoning":
                place += b',"content_index":0'
                events = self._event(b"response.reasoning_text.done", place + b',"text":' + text)
                part = _encode(ThoughtObject(item.text))
                events += self._event(b"response.content_part.done", place + b',"part":' + part)
        whole = b'"output_index":%d,"item":' % item.index + _encode(item_object(item))
        return events + self._event(b"response.output_item.done", whole)

    def _told(self, kind: bytes, told: Told) -> bytes:
        return self._event(kind, b'"response":' + self._rendered.response(told))

    def _event(self, kind: bytes, body: bytes) -> bytes:
        number = self._next
        self._next += 1
        if number <= self._after:
            return b""
        head = b"event: " + kind + b'\ndata: {"type":"' + kind + b'","sequence_number":%d,' % number
        return head + body + b"}\n\n"


def _place(item: OutputItem) -> bytes:
    return b'"item_id":' + _encode(item.id) + b',"output_index":%d' % item.index
