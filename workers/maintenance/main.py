"""`paddler worker`: the arq worker with the upkeep as a cron job, run by one worker at a time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import rich_click as click
import uvloop
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker

from paddler import logs
from paddler.clock import Clock, SystemClock
from paddler.logs import get_logger
from paddler.settings import log_options, option, redis_options
from paddler.store.client import COMMAND_TIMEOUT_S, TROUBLE, Store, connect, connection_pool
from paddler.store.fitness import warn_of_faults
from paddler.store.keys import upkeep_key
from workers.maintenance.upkeep import Upkeep

log = get_logger(__name__)

MAX_RETRY_S = 2.0


async def upkeep(ctx: dict[Any, Any]) -> None:
    """The cron job of every second."""
    job: Upkeep = ctx["upkeep"]
    try:
        await job.run_once()
    except TROUBLE as error:
        log.warning("upkeep failed, trying again in a second", error=str(error))


def build_worker(store: Store, work: Upkeep) -> Worker:
    """An arq worker on the same Redis, its keys below the same prefix."""
    queue_name = upkeep_key(store.prefix)
    pool = connection_pool(store.url, timeout_s=COMMAND_TIMEOUT_S, retries=3, max_connections=8)
    # `unique` makes arq give a run to one worker only; results are of no use and would pile up. The prefix is in the
    # name because arq's own job keys have none: fleets sharing a Redis would take each other's runs away.
    name = f"{store.prefix}:upkeep"
    job = cron(upkeep, name=name, second=set(range(60)), unique=True, keep_result=0, timeout=30, max_tries=1)
    return Worker(
        cron_jobs=[job],
        queue_name=queue_name,
        redis_pool=ArqRedis(connection_pool=pool, default_queue_name=queue_name),
        ctx={"upkeep": work},
        handle_signals=False,
        log_results=False,
        poll_delay=0.25,
        health_check_interval=30,
    )


async def serve(store: Store, *, lease_ms: int, orphan_grace_ms: int) -> None:
    """Run until a signal; trouble with Redis is waited out."""
    clock = SystemClock()
    work = Upkeep(store, clock, lease_ms=lease_ms, orphan_grace_ms=orphan_grace_ms)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    runner = asyncio.create_task(worker_loop(store, work, clock))
    checking = asyncio.create_task(warn_of_faults(store, clock))
    await stopping.wait()
    for task in (runner, checking):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await store.close()
    log.info("stopped")


async def worker_loop(store: Store, work: Upkeep, clock: Clock) -> None:
    """Run arq workers, a new one after every trouble with Redis; never returns."""
    delay = 0.1
    while True:
        worker = build_worker(store, work)
        try:
            await worker.async_run()
        except TROUBLE as error:
            log.warning("Redis trouble, starting the worker again", error=str(error))
        finally:
            await close_worker(worker)
        await clock.sleep(delay)
        delay = min(delay * 2, MAX_RETRY_S)


async def close_worker(worker: Worker) -> None:
    """Stop its job and close its connections.

    `Worker.close` raises what the job and Redis raise, a cancellation among it: that ended the loop above for good
    when an outage met a round under way."""
    tasks = list(worker.tasks.values())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await worker.pool.close(close_connection_pool=True)


@click.command(name="worker")
@redis_options
@option(
    "--lease",
    "lease_ms",
    type=click.IntRange(min=500),
    default=5000,
    help="The lease of the agents, ms: nobody is reaped before Redis has answered for that long.",
)
@option(
    "--orphan-grace",
    "orphan_grace_ms",
    type=click.IntRange(min=0),
    default=30_000,
    help="Time for a client to resume on another balancer when its own was lost, ms; then its request is cancelled.",
)
@log_options
def command(
    *, redis_url: str, redis_prefix: str, lease_ms: int, orphan_grace_ms: int, log_level: str, log_format: str
) -> None:
    """Run the upkeep: return the requests of lost agents to the queue, end what waited too long or nobody follows,
    audit the queue."""
    logs.configure("worker", log_level, log_format)
    uvloop.run(serve(connect(redis_url, redis_prefix), lease_ms=lease_ms, orphan_grace_ms=orphan_grace_ms))
