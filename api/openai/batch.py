"""What is asked for many inputs at once, and computed in several requests of the queue: embeddings and rankings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from msgspec.structs import replace

from api.body import AnyRequest
from api.exchange import Submit
from api.gathered import GatheredAnswer
from api.openai.label import Label, encode_label
from api.options import read_options
from paddler.clock import Clock
from paddler.jobs.gateway import Gateway
from paddler.jobs.heard import Heard
from paddler.wire.agent import Encode
from paddler.wire.balancer import Usage

MIN_TICKET = 16
"""About what one decode takes of short inputs: a smaller ticket would leave it half empty."""


class BatchCall(Protocol):
    """A checked request; `label` is for what `tickets` made."""

    @property
    def model(self) -> str: ...

    def tickets(self, num_slots: int, *, is_one: bool) -> Sequence[Encode]: ...

    def label(self, ticket: Any) -> Label: ...

    def gather(self, parts: Sequence[Heard]) -> Iterable[bytes]: ...


async def answer_batch(gateway: Gateway, clock: Clock, request: AnyRequest, call: BatchCall) -> GatheredAnswer:
    """Spread it over the slots of its pool. Raises `ModelNotFound`, `QueueUnavailable`, `InvalidField`."""
    how = await read_options(request, label=b"")
    pool = await gateway.resolve(call.model)
    has_key = bool(how.idempotency_key)
    # A repeat may find another number of slots, and its key must find the same inputs.
    tickets = call.tickets(await gateway.num_slots(pool), is_one=has_key)
    submits: list[Submit] = []
    for ticket in tickets:
        # The deadline is for the call, which has begun with its first ticket.
        timeout_ms = how.start_timeout_ms if not submits else 0
        label = encode_label(call.label(ticket))
        # There is no stream, and the client knows one id of several: only a key brings it back.
        num_parts = 0 if submits else len(tickets)
        way = replace(how, label=label, start_timeout_ms=timeout_ms, can_be_resumed=has_key, num_parts=num_parts)
        submits.append(partial(gateway.submit, pool, ticket, way))
    return GatheredAnswer(submits, call.gather, clock)


def usage_of(parts: Sequence[Heard]) -> Usage:
    """Of all together."""
    usages = [part.end.usage for part in parts if part.end is not None]
    return Usage(
        sum(usage.prompt_tokens for usage in usages), cached_tokens=sum(usage.cached_tokens for usage in usages)
    )
