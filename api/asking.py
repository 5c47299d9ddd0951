"""Questions about texts that only a model's vocabulary or template can answer, for any protocol.

A question goes through the queue as every request does, and is answered between two decodes: it waits for a slot, but
for no generation while one is free. With no agent it waits for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

import msgspec
from litestar.types import Receive, Scope, Send

from api.body import read_aside
from api.connection import Outgoing, run_while_connected
from api.event_stream import route_headers
from api.exchange import Submit, check_reason, remember
from api.pieces import write_json
from paddler.clock import Clock
from paddler.errors import EngineFailed, RequestLost
from paddler.jobs.gateway import Reply
from paddler.wire.answers import Answer, decode_answer
from paddler.wire.balancer import Answered, Finished

A = TypeVar("A", bound=Answer)


async def ask(submit: Submit, kind: type[A]) -> A:
    """The answer to a question of the kind that `kind` answers. `submit` is `gateway.submit` with pool, question (a
    `wire.agent.Question`) and a `Submit` whose label says how to show it later.

    Raises a `PaddlerError`, also of the agent: of what is no question for its model."""
    async with await submit() as reply:
        return await read_answer(reply, kind)


async def read_answer(reply: Reply, kind: type[A]) -> A:
    """Read to the end. Raises a `PaddlerError` for any other end."""
    answer: bytes | None = None
    async for frame in reply:
        match frame:
            case Answered(body):
                answer = body
            case Finished():
                check_reason(frame)
            case _:
                pass
    if answer is None:
        raise RequestLost("Redis lost this request's answer; send it again.")
    return await read_aside(answer, partial(_decode, kind=kind))


class AskedAnswer(Generic[A]):
    """Answers one HTTP request with what an agent says to a question; who leaves cancels it."""

    def __init__(self, submit: Submit, kind: type[A], render: Callable[[A], Iterable[bytes]], clock: Clock) -> None:
        """`submit` and `kind` as in `ask`; `render` makes the chunks of a JSON body."""
        self._submit = submit
        self._kind = kind
        self._render = render
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock)

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        async with await self._submit() as reply:
            remember(scope, reply.request_id)
            chunks = self._render(await read_answer(reply, self._kind))
            headers = [(b"x-request-id", reply.request_id.encode()), *route_headers(reply)]
            await write_json(out, headers, chunks, self._clock)


def _decode(body: bytes, kind: type[A]) -> A:
    try:
        answer = decode_answer(body)
    except msgspec.MsgspecError as error:
        raise EngineFailed(f"this balancer cannot read the agent's answer: {error}") from error
    if not isinstance(answer, kind):
        raise EngineFailed("the agent has answered another question.")
    return answer
