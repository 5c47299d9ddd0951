"""Responses as whole answers, and as what is known of them while they run and afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from api.openai.label import Label, ResponseLabel, label_of
from api.responses.objects import (
    RESPONSE,
    Rendered,
    Told,
    failure_object,
    item_objects,
    told_finished,
)
from api.responses.output import Output, read_output
from api.responses.stream import ResponseStream
from api.responses.told import told_of_response
from paddler.errors import InvalidField, RequestNotFound, error_of
from paddler.ids import pool_of
from paddler.jobs.gateway import Reply, RequestStatus
from paddler.wire.balancer import Finished, FinishReason, Tokens


def request_id_of_response(param: str, response_id: str) -> str:
    """Raises `InvalidField` for what is no id of a response."""
    request_id = response_id.removeprefix(RESPONSE)
    try:
        if request_id == response_id:
            raise ValueError
        pool_of(request_id)
    except ValueError:
        raise InvalidField(
            f"`{param}`: this is no id of a response; it looks like {RESPONSE}<pool>.<22 characters>.", param=param
        ) from None
    return request_id


def stream_response(reply: Reply, *, after: int = -1) -> ResponseStream:
    """Events from where the reply is followed on, and behind the one with the number `after`."""
    return ResponseStream(
        reply.request_id,
        response_label(label_of(reply), reply.request_id),
        after=after,
        is_begun=reply.offset > 0,
        earlier=reply.earlier,
        route=reply.route,
        has_failed=lambda: reply.has_failed,
    )


def render_response(reply: Reply, said: Sequence[Tokens], end: Finished) -> bytes:
    """The whole answer."""
    label = response_label(label_of(reply), reply.request_id)
    output = read_output(reply.request_id, said, reply.route.format, has_logprobs=label.has_logprobs)
    output.finish(is_whole=end.reason is FinishReason.STOP)
    return Rendered(reply.request_id, label).response(told_finished(output, end.reason, end.usage))


def render_status(status: RequestStatus) -> bytes:
    """A response as it is now. Raises `RequestNotFound` for a request that is none."""
    label = response_label(label_of(status), status.request_id)
    output = read_output(status.request_id, status.tokens, status.route.format, has_logprobs=label.has_logprobs)
    return Rendered(status.request_id, label).response(_told(status, output))


def response_label(label: Label, request_id: str) -> ResponseLabel:
    """Raises `RequestNotFound` for a request that is no response."""
    if not isinstance(label, ResponseLabel):
        raise RequestNotFound(f"the request {request_id!r} is no response.", param="response_id")
    return label


def _told(status: RequestStatus, output: Output) -> Told:
    match status.state:
        case "done" if status.end is not None:
            output.finish(is_whole=status.end.reason is FinishReason.STOP)
            return told_finished(output, status.end.reason, status.end.usage)
        case "failed" if status.error is not None:
            output.break_off()
            error = failure_object(told_of_response(error_of(status.error)))
            return Told("failed", item_objects(output.items), error=error)
        case "cancelled":
            output.break_off()
            return Told("cancelled", item_objects(output.items))
        case _ if status.is_cancelling:
            # Its agent stops within a step.
            return Told("cancelled", item_objects(output.items))
        case "running":
            return Told("in_progress", item_objects(output.items))
        case _:
            return Told("queued")
