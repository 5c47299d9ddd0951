"""One HTTP request that several requests of the queue answer together, all at once when the last has finished: a batch
of embeddings, or several choices.

Leaving before that, for whatever reason, cancels those that have not ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack

from litestar.types import Receive, Scope, Send

from api.connection import Headers, Outgoing, run_while_connected
from api.event_stream import header_value
from api.exchange import Submit
from api.parts import Part, follow_parts
from api.pieces import write_json
from api.standing import POSITION, standing_headers
from paddler.clock import Clock
from paddler.jobs.gateway import Reply


class GatheredAnswer:
    """Answers once, when all of the requests have finished."""

    def __init__(
        self, submits: Sequence[Submit], render: Callable[[Sequence[Part]], Iterable[bytes]], clock: Clock
    ) -> None:
        """`render` makes the chunks of a JSON body of all parts in order; what it raises comes before the first."""
        self._submits = submits
        self._render = render
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock)

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        async with AsyncExitStack() as stack:
            parts = await follow_parts(self._submits, scope, stack)
            chunks = self._render(parts)
            headers: Headers = [(b"x-request-id", parts[0].reply.request_id.encode())]
            await write_json(out, headers + _route_headers([part.reply for part in parts]), chunks, self._clock)


def _route_headers(replies: Sequence[Reply]) -> Headers:
    """All agents that have answered, and the most attempts any of the requests took."""
    agents = dict.fromkeys(header_value(name) for reply in replies if (name := reply.route.agent_name) is not None)
    attempts = [reply.route.attempt for reply in replies if reply.route.attempt is not None]
    headers: Headers = []
    if agents:
        headers.append((b"x-paddler-agent", ", ".join(agents).encode()))
    if attempts:
        headers.append((b"x-paddler-attempt", b"%d" % max(attempts)))
    # The first was to wait as any request; what is left when the last is in is what the next client finds.
    position = [header for header in standing_headers(replies[0]) if header[0] == POSITION]
    return headers + position + [header for header in standing_headers(replies[-1]) if header[0] != POSITION]
