"""`paddler worker`: the arq worker with the upkeep as a cron job, run by one worker at a time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

import rich_click as click
import uvloop
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker

from paddler import logs
from paddler.batches.contents import Contents
from paddler.batches.options import contents_of, file_store_option
from paddler.clock import Clock, SystemClock
from paddler.entrance import EXIT_CONFIG, Entrance, Incompatible
from paddler.logs import get_logger
from paddler.metrics.options import statsd_of, statsd_options
from paddler.metrics.statsd import Statsd, StatsdSettings
from paddler.presence import Presence
from paddler.settings import Address, aws_options, log_options, option, redis_options
from paddler.store.client import COMMAND_TIMEOUT_S, TROUBLE, Store, connect, connection_pool
from paddler.store.fitness import warn_of_faults
from paddler.store.keys import upkeep_key
from paddler.store.remedies import remedy_for
from workers.maintenance.batch_worker import BatchRunner, build_batch_worker
from workers.maintenance.upkeep import Upkeep

log = get_logger(__name__)

MAX_RETRY_S = 2.0


async def upkeep(ctx: dict[Any, Any]) -> None:
    """The cron job of every second."""
    job: Upkeep = ctx["upkeep"]
    entrance: Entrance = ctx["entrance"]
    try:
        # Each time: who wakes up after an upgrade must not mend what it does not understand.
        await entrance.run_once()
        await job.run_once()
    except Incompatible as error:
        log.error("no upkeep by this version", error=str(error))
    except TROUBLE as error:
        log.warning("upkeep failed, trying again in a second", error=str(error), remedy=remedy_for(error))


def build_worker(store: Store, work: Upkeep, entrance: Entrance) -> Worker:
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
        ctx={"upkeep": work, "entrance": entrance},
        handle_signals=False,
        log_results=False,
        poll_delay=0.25,
        health_check_interval=30,
    )


async def serve(
    store: Store,
    contents: Contents,
    *,
    lease_ms: int,
    orphan_grace_ms: int,
    batch_lease_ms: int,
    reporting: StatsdSettings | None = None,
) -> int:
    """Run until a signal, or until batches cannot be followed any more; trouble with Redis is waited out. Returns the
    exit code. Raises `Incompatible`."""
    clock = SystemClock()
    work = Upkeep(store, clock, lease_ms=lease_ms, orphan_grace_ms=orphan_grace_ms)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    statsd = None if reporting is None else Statsd(reporting, store, clock)
    batches = BatchRunner(store, contents, clock, lease_ms=batch_lease_ms)
    entrance = Entrance(store, clock)
    await entrance.first_look()
    if statsd is not None:
        statsd.start()
    tasks = [
        asyncio.create_task(worker_loop(lambda: build_worker(store, work, entrance), clock)),
        asyncio.create_task(worker_loop(lambda: build_batch_worker(store, batches), clock)),
        asyncio.create_task(batches.upkeep_loop()),
        asyncio.create_task(warn_of_faults(store, clock)),
        asyncio.create_task(Presence(store, clock, "worker").run()),
    ]
    ends = [asyncio.create_task(one) for one in (stopping.wait(), batches.failed.wait(), entrance.watch_loop())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, *ends):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Incompatible):
            await task
    await batches.close()
    if statsd is not None:
        await statsd.close()
    await store.close()
    if entrance.refusal is not None:
        raise entrance.refusal
    log.info("stopped")
    return int(batches.failed.is_set())


async def worker_loop(build: Callable[[], Worker], clock: Clock) -> None:
    """Run arq workers, a new one after every trouble with Redis; never returns."""
    delay = 0.1
    while True:
        worker = build()
        try:
            await worker.async_run()
        except TROUBLE as error:
            log.warning("Redis trouble, starting the worker again", error=str(error), remedy=remedy_for(error))
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
    await worker.pool.aclose(close_connection_pool=True)


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
@option(
    "--batch-lease",
    "batch_lease_ms",
    type=click.IntRange(min=1000),
    default=10_000,
    help="After so long, ms, without a word from the worker that runs a batch, another one goes on with it.",
)
@file_store_option
@statsd_options
@aws_options
@log_options
def command(
    *,
    redis_url: str,
    redis_prefix: str,
    lease_ms: int,
    orphan_grace_ms: int,
    batch_lease_ms: int,
    file_store: str,
    statsd_addr: Address | None,
    statsd_prefix: str,
    statsd_reporting_interval: int,
    log_level: str,
    log_format: str,
) -> None:
    """Run the upkeep: return the requests of lost agents to the queue, end what waited too long or nobody follows,
    audit the queue. And run batches."""
    logs.configure("worker", log_level, log_format)
    store = connect(redis_url, redis_prefix)
    contents = contents_of(store, file_store, SystemClock())
    reporting = statsd_of(statsd_addr, statsd_prefix, statsd_reporting_interval)
    times = {"lease_ms": lease_ms, "orphan_grace_ms": orphan_grace_ms, "batch_lease_ms": batch_lease_ms}
    try:
        code = uvloop.run(serve(store, contents, **times, reporting=reporting))
    except Incompatible as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(EXIT_CONFIG) from None
    raise SystemExit(code)
