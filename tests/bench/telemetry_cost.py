"""What telemetry costs a balancer, without HTTP and Redis: `python -m tests.bench.telemetry_cost`.

For each request the same is done as in a gateway: measured, followed over some deliveries of a token each, left. What
a request costs is told without any delivery, what a delivery costs by the difference. It is CPU time of the process,
so neighbours do not count.
"""

from __future__ import annotations

import asyncio
import gc
import io
import sys
from collections.abc import Sequence
from math import inf
from time import process_time
from typing import Any, cast

from api.observing import AccessMeter, Observed
from api.tracing import TraceMeter
from paddler import logs
from paddler.clock import SystemClock
from paddler.jobs.gateway import Submit
from paddler.jobs.mailbox import Mailbox
from paddler.jobs.measuring import Measuring, Meter, measured_of
from paddler.jobs.reply import Reply
from paddler.jobs.standing import Standing
from paddler.metrics.requests import RequestMetrics
from paddler.metrics.statsd import Timers
from paddler.tracing.options import TracingSettings
from paddler.tracing.traces import Traces
from paddler.wire.agent import Generate, Message
from paddler.wire.balancer import Finished, FinishReason, Opened, Tokens, Usage, encode_frame

NUM_REQUESTS = 1_000
NUM_DELIVERIES = 100
ROUNDS = 10

_PAYLOAD = Generate(messages=(Message("user", "hello"),))
_OPENED = encode_frame(Opened("agent", 1))
_TOKEN = encode_frame(Tokens((7,), " word"))
_END = encode_frame(Finished(FinishReason.STOP, Usage(10, NUM_DELIVERIES, 5)))
_STANDING = Standing(1, 1, None)


async def request(meters: Sequence[Meter], num_deliveries: int, clock: SystemClock) -> None:
    mailbox = Mailbox("default.x", now=clock.monotonic(), start_deadline=None)
    reply = Reply(mailbox, lambda _: None, standing=_STANDING)
    if meters:
        reply = Measuring(measured_of("default", _PAYLOAD, Submit(), clock.monotonic()), meters).accepted(reply)
    async with reply:
        offset = 0
        for data in (_OPENED, *[_TOKEN] * num_deliveries, _END):
            mailbox.feed(offset, data, clock.monotonic())
            offset += len(data)
            for _ in reply.read():
                pass


async def seconds(meters: Sequence[Meter], num_deliveries: int) -> float:
    """Of one request."""
    clock = SystemClock()
    number = NUM_REQUESTS // (1 + num_deliveries // 10)
    began = process_time()
    for _ in range(number):
        await request(meters, num_deliveries, clock)
    return (process_time() - began) / number


async def measured(kinds: dict[str, list[Meter]]) -> dict[str, tuple[float, float]]:
    """Of each kind the least that a request has taken, without deliveries and with. All take turns, so that what else
    the machine does meets them alike."""
    best = dict.fromkeys(kinds, (inf, inf))
    for _ in range(ROUNDS):
        for name, meters in kinds.items():
            short, long = best[name]
            best[name] = min(short, await seconds(meters, 0)), min(long, await seconds(meters, NUM_DELIVERIES))
    return best


async def access_line() -> float:
    """A request through `Observed` with its line as JSON, less one that answers alone."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-paddler-request-id", b"default.x")]})

    async def send(_event: Any) -> None: ...

    logs.configure("balancer", "info", "json", stream=io.StringIO())
    observed = Observed(cast("Any", app), "inference", RequestMetrics(), SystemClock())
    costs: list[float] = []
    for one in (app, observed):
        began = process_time()
        for _ in range(NUM_REQUESTS):
            scope = {"type": "http", "method": "POST", "path_template": "/v1/chat/completions", "headers": []}
            await cast("Any", one)(scope, None, send)
        costs.append((process_time() - began) / NUM_REQUESTS)
    return costs[1] - costs[0]


async def main() -> None:
    # Nobody listens there: the SDK's queue fills and the rest is dropped, as with any collector that is away.
    traces = Traces(TracingSettings("http://127.0.0.1:1/v1/traces", "bench"), SystemClock(), "bench")
    kinds: dict[str, list[Meter]] = {
        "metrics": [RequestMetrics()],
        "StatsD": [Timers()],
        "access log": [AccessMeter()],
        "traces": [TraceMeter(traces)],
    }
    gc.disable()
    best = await measured({"": [], **kinds})
    bare_short, bare_long = best.pop("")
    print(f"{'':12} {'µs a request':>14} {'ns a delivery':>14}")
    for name, (short, long) in best.items():
        more = short - bare_short
        print(f"{name:12} {more * 1e6:14.1f} {(long - bare_long - more) / NUM_DELIVERIES * 1e9:14.0f}")
    print(f"{'its line':12} {await access_line() * 1e6:14.1f}")
    logs.configure("bench", "error", stream=sys.stderr)
    traces.close()


if __name__ == "__main__":
    asyncio.run(main())
