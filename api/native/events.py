"""A native request as server-sent events, each with the envelope that would be a line: for whoever goes on with it."""

from __future__ import annotations

from collections.abc import Sequence

from api.native.envelope import Envelopes
from api.native.errors import error_line
from api.native.label import NativeLabel
from api.native.stream import NativeStream
from paddler.errors import PaddlerError
from paddler.jobs.reply import Reply
from paddler.wire.balancer import Finished, FinishReason, TokenLogprob, Usage


class NativeEvents:
    """A `Rendering` of `GET /v1/requests/{id}/stream`."""

    def __init__(self, reply: Reply, label: NativeLabel, *, item_timeout_ms: int) -> None:
        self._envelopes = Envelopes(reply.request_id)
        self._stream = NativeStream(self._envelopes, label, reply)
        self._route = reply.route
        self._item_timeout_ms = item_timeout_ms

    def tokens(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:  # noqa: ARG002
        """Paddler 4 knows no log probabilities."""
        return _events(self._stream.tokens(text))

    def finished(self, reason: FinishReason, usage: Usage) -> bytes:
        return _events(self._stream.finished(Finished(reason, usage)))

    def failed(self, error: PaddlerError) -> bytes:
        name = self._route.agent_name
        return _events([error_line(error, self._envelopes, self._item_timeout_ms, generated_by=name)])

    def over(self) -> bytes:
        """Its client has had `Done`."""
        return b""


def _events(envelopes: Sequence[bytes]) -> bytes:
    return b"".join([b"data: " + envelope + b"\n\n" for envelope in envelopes])
