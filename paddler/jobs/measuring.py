"""What this process sees of a request that it has submitted: when it began, said something and ended, and how.

Metrics, traces and the access log are made of it (`paddler.metrics`, `api.observing`). On the way of a token nothing is
done but to compare the time at which its delivery came with that of the one before, once for all that has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from paddler.errors import PaddlerError
from paddler.jobs.reply import Reply
from paddler.wire.agent import Ability, Generate, Payload, ability_for

INTERNAL_ERROR = "internal_error"
CLIENT_GONE = "client_gone"
IN_BACKGROUND = "background"
DUPLICATE = "duplicate"


_OPERATIONS = {"generate": "text_completion", "embed": "embeddings", "rerank": "rerank", "tokenize": "tokenize"}


class Way(Protocol):
    """What is read of a `Submit`."""

    @property
    def request_class(self) -> str: ...
    @property
    def tenant(self) -> str: ...


class Measured(Struct, kw_only=True):
    """One request. Times are seconds of `Clock.monotonic`; None is what has not happened, or is not known.

    `operation` is what GenAI's semantic conventions of OpenTelemetry call it. `outcome` is `stop` or `length` of one
    that finished, the code of an error, `client_gone` when its client left, `background` when nobody waits for its end
    here, `duplicate` when it is answered with an earlier one, whose times are not its own, or `internal_error`.
    `traceparent` is what its agent goes on with, if it is traced."""

    pool: str
    request_class: str
    kind: Ability
    operation: str
    tenant: str
    submitted_at: float
    request_id: str = ""
    opened_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    ended_at: float | None = None
    agent_name: str | None = None
    attempt: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    outcome: str = ""
    traceparent: str = ""


def measured_of(pool: str, payload: Payload, how: Way, now: float) -> Measured:
    """One that is about to be submitted."""
    kind = ability_for(payload)
    is_chat = isinstance(payload, Generate) and payload.messages is not None
    return Measured(
        pool=pool,
        request_class=how.request_class,
        kind=kind,
        operation="chat" if is_chat else _OPERATIONS[kind],
        tenant=how.tenant,
        submitted_at=now,
    )


class Meter:
    """Who wants to know; what a meter does not care for it leaves as it is."""

    def began(self, measured: Measured) -> None:
        """It is about to be submitted."""

    def tokens(self, measured: Measured, seconds: float, num_tokens: int) -> None:
        """So many tokens have come, so long after those before them."""

    def ended(self, measured: Measured) -> None:
        """Once for each that began, in the task that has submitted it."""


class Measuring:
    """One request for some meters."""

    def __init__(self, measured: Measured, meters: Sequence[Meter]) -> None:
        self.measured = measured
        self._meters = meters
        self._of_tokens = [meter for meter in meters if type(meter).tokens is not Meter.tokens]
        for meter in meters:
            meter.began(measured)

    def accepted(self, reply: Reply) -> Reply:
        """`reply` tells of what comes from now on."""
        self.measured.request_id = reply.request_id
        if reply.standing is None:
            self._end(DUPLICATE)
        else:
            reply.came, reply.left = self._came, self._left
        return reply

    def refused(self, error: BaseException) -> None:
        self._end(_outcome_of(error))

    def _came(self, num_tokens: int, at: float) -> None:
        measured = self.measured
        if measured.last_token_at is None:
            # What comes together with the first has no time of its own.
            measured.first_token_at = at
        else:
            for meter in self._of_tokens:
                meter.tokens(measured, at - measured.last_token_at, num_tokens)
        measured.last_token_at = at

    def _left(self, reply: Reply, error: BaseException | None) -> None:
        measured, route = self.measured, reply.route
        measured.agent_name, measured.attempt = route.agent_name, route.attempt
        measured.opened_at = None if route.attempt is None else reply.opened_at
        measured.prompt_tokens, measured.cached_tokens = route.prompt_tokens or 0, route.cached_tokens or 0
        measured.output_tokens = route.num_tokens
        if reply.reason is not None:
            measured.ended_at = reply.heard_at
            self._end(reply.reason)
        elif reply.has_failed:
            measured.ended_at = reply.heard_at
            self._end(_outcome_of(error))
        else:
            self._end(_outcome_of(error))

    def _end(self, outcome: str) -> None:
        self.measured.outcome = outcome
        for meter in self._meters:
            meter.ended(self.measured)


def _outcome_of(error: BaseException | None) -> str:
    match error:
        case PaddlerError():
            return error.code
        case None:
            return IN_BACKGROUND
        case Exception():
            return INTERNAL_ERROR
        case _:
            return CLIENT_GONE
