"""An agent with an engine, from its registration to its leave, and how its process comes to an end."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import Struct

from paddler import __version__, logs
from paddler.clock import Clock
from paddler.engine import Engine, ModelError
from paddler.entrance import EXIT_CONFIG
from paddler.logs import get_logger
from paddler.model_facts import encode_facts
from paddler.presence import present
from paddler.store.client import TROUBLE, Store
from paddler.store.fitness import warn_of_faults
from paddler.store.remedies import remedy_for
from paddler.tracing.options import TracingSettings
from workers.agent.loader import Build, LoadStalled
from workers.agent.loop import AgentLoop
from workers.agent.mark import StartMark
from workers.agent.membership import Membership
from workers.agent.standing import Standing
from workers.agent.starting import Starting
from workers.agent.watchdog import EngineHangs, Watchdog

if TYPE_CHECKING:
    from workers.agent.tiers.sharing import Sharing
    from workers.agent.tracing import EngineSpans

log = get_logger(__name__)

ENGINE_STOP_S = 2.0
UNLOAD_S = 30.0
"""For the last step of an engine that makes room for another: a step ends within a second, unless it hangs."""
WITHDRAW_S = 0.5
REGISTER_RETRY_S = 0.5
PRELOAD_S = 0.5
"""What pinned prefixes may take before an agent is there for requests; what its tiers do not give by then is computed
beside them."""
EXIT_HANGS = 70
"""EX_SOFTWARE: a supervisor starts the agent again."""
LOAD_STALL_FACTOR = 10
"""Loading may stand still for so many times as long as a step may take: a disk is waited for."""


class AgentSettings(Struct, frozen=True, kw_only=True):
    """What an agent is apart from its engine. `files` are what that is made of, the model first; `waits` is False if a
    model that cannot be served ends the agent. `slots` is what it will have. `process_id` stays the same while the
    agent registers again and again."""

    pool: str
    name: str
    lease_ms: int
    grace_ms: int
    flush_ms: int
    hang_ms: int
    waits: bool
    files: tuple[Path, ...]
    slots: int = 0
    process_id: str = ""
    tracing: TracingSettings | None = None
    monitoring_ms: int = 0
    kv_grace_ms: int = 2000
    """How long it writes states when it leaves."""

    @property
    def load_stall_s(self) -> float:
        return self.hang_ms * LOAD_STALL_FACTOR / 1000

    @property
    def mark_origin(self) -> str:
        return f"{socket.gethostname()} {self.name}"

    def origin(self, files: tuple[Path, ...] | None = None) -> dict[str, str | int]:
        """Fields of the agent's hash that say where it is and what it serves; `files` if not its own."""
        files = self.files if files is None else files
        path = str(files[0]) if files else ""
        told = {"desired_slots": self.slots, "model_path": path, "process_id": self.process_id}
        return {"version": __version__, "host": socket.gethostname(), "pid": os.getpid(), **told}


class Signals:
    """The first asks the agent to stop, the second to hurry."""

    def __init__(self) -> None:
        self.stopping, self.hurrying = asyncio.Event(), asyncio.Event()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.hurrying if self.stopping.is_set() else self.stopping).set()


async def serve_pinned(
    store: Store, build: Build, settings: AgentSettings, clock: Clock, sharing: Sharing | None = None
) -> int:
    """Serve what the flags say until a signal or a failed engine. Returns the exit code."""
    signals = Signals()
    signals.listen()
    async with present(store, clock, "agent", settings.name), shared(sharing, clock, signals):
        try:
            engine = await _start(store, build, settings, clock, signals)
        except ModelError as error:
            # EX_CONFIG: starting again would change nothing, and `paddler up` stops with this line.
            print(f"paddler agent: {error}", file=sys.stderr)
            code = EXIT_CONFIG
        else:
            code = await serve_engine(store, engine, settings, clock, signals, sharing=sharing)
    await store.close()
    return code or 0


@contextlib.asynccontextmanager
async def shared(sharing: Sharing | None, clock: Clock, signals: Signals) -> AsyncGenerator[None]:
    """With the fleet's secret and an open door for other agents, for as long as the context lasts. Waits for Redis.
    Ends the process, as a `ModelError` does, where the settings cannot be."""
    if sharing is None:
        yield
        return
    from workers.agent.tiers.sharing import CannotShare

    while not signals.stopping.is_set():
        try:
            await sharing.start()
            break
        except CannotShare as error:
            print(f"paddler agent: {error}", file=sys.stderr)
            sys.exit(EXIT_CONFIG)
        except TROUBLE as error:
            log.warning("cannot get the fleet's secret, trying again", error=str(error), remedy=remedy_for(error))
            await clock.sleep(REGISTER_RETRY_S)
    try:
        yield
    finally:
        await sharing.close()


async def serve_engine(
    store: Store,
    engine: Engine,
    settings: AgentSettings,
    clock: Clock,
    signals: Signals,
    *,
    files: tuple[Path, ...] | None = None,
    standing: Standing | None = None,
    until: Callable[[AgentLoop], Awaitable[None]] | None = None,
    sharing: Sharing | None = None,
) -> int | None:
    """Serve until a signal or a failed engine: the exit code; or until `until`, told of the registered agent, returns:
    None, and everything was handed over and the engine is closed."""
    times = {"lease_ms": settings.lease_ms, "flush_ms": settings.flush_ms, "monitoring_ms": settings.monitoring_ms}
    snapshot = _snapshot(engine, settings, files) | ({} if sharing is None else dict(sharing.fields()))
    pool, spans = store.pool(settings.pool), new_spans(settings, clock)
    agent = AgentLoop(
        store,
        pool,
        engine,
        clock,
        name=settings.name,
        snapshot=snapshot,
        standing=standing,
        on_removed=signals.stopping.set,
        spans=spans,
        sharing=sharing,
        **times,
    )
    agent.engine.start_thread()
    await agent.pinning.preload(PRELOAD_S)
    while not signals.stopping.is_set():
        try:
            await agent.register()
            break
        except TROUBLE as error:
            log.warning("cannot register, trying again", error=str(error), remedy=remedy_for(error))
            await clock.sleep(REGISTER_RETRY_S)
    checking = asyncio.create_task(warn_of_faults(store, clock))
    watchdog = Watchdog(agent.engine, clock, agent.give_up, settings.hang_ms / 1000)
    tasks = [asyncio.create_task(one) for one in (*agent.loops(), watchdog.run())]
    stop = asyncio.create_task(signals.stopping.wait())
    over = asyncio.create_task(_over(until, agent))
    await asyncio.wait({stop, over, agent.engine.failed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    is_asked = stop.done() or (over.done() and not over.exception())
    if is_asked:
        leaving = asyncio.create_task(agent.leave(settings.grace_ms / 1000, settings.kv_grace_ms / 1000))
        hurry = asyncio.create_task(signals.hurrying.wait())
        await asyncio.wait({leaving, hurry, agent.engine.failed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if leaving.done() and (error := leaving.exception()):
            log.warning("could not hand over; the lease will end by itself", error=str(error))
        leaving.cancel()
    for task in (*tasks, over):
        if task.done() and not task.cancelled() and (failure := task.exception()):
            if isinstance(failure, EngineHangs):
                die_hanging()
            log.error("a loop of the agent failed", exc_info=failure)
            code = 1
        task.cancel()
    for task in (checking, stop):
        task.cancel()
    await asyncio.gather(checking, stop, over, *tasks, return_exceptions=True)
    if sharing is not None and is_asked:
        agent.drop_all()  # or it would be computed here beside who has taken it
        await sharing.stay(*agent.handed_over, signals.hurrying)
    if spans is not None:
        await asyncio.to_thread(spans.close)
    code = 1 if agent.engine.failed.done() else code
    if code or signals.stopping.is_set():
        agent.engine.stop(ENGINE_STOP_S)
        return code
    if not await asyncio.to_thread(agent.engine.stop, UNLOAD_S):
        log.critical("the engine does not stop; this process ends")
        die_hanging()
    return None


def new_spans(settings: AgentSettings, clock: Clock) -> EngineSpans | None:
    """None: nothing is traced."""
    if settings.tracing is None:
        return None
    from paddler.tracing.traces import Traces
    from workers.agent.tracing import EngineSpans

    return EngineSpans(Traces(settings.tracing, clock, settings.name), clock, settings.name)


async def _over(until: Callable[[AgentLoop], Awaitable[None]] | None, agent: AgentLoop) -> None:
    if until is None:
        await asyncio.Event().wait()
    else:
        await until(agent)


def _snapshot(engine: Engine, settings: AgentSettings, files: tuple[Path, ...] | None) -> dict[str, str | int | float]:
    return {
        "build": engine.info.build,
        "context_size": engine.info.context_size,
        "bytes_per_token": engine.info.bytes_per_token,
        "max_parked": engine.info.max_parked,
        "abilities": " ".join(engine.info.abilities),
        "facts": "" if engine.info.facts is None else encode_facts(engine.info.facts),
        **settings.origin(files),
    }


async def _start(store: Store, build: Build, settings: AgentSettings, clock: Clock, signals: Signals) -> Engine:
    """Load the engine, visibly. Raises `ModelError`. A signal ends the process: the loading cannot be interrupted."""
    snapshot = {"state": "loading", "slots": 0, "name": settings.name, **settings.origin()}
    pool = store.pool(settings.pool)
    membership = Membership(store, pool, clock, lease_ms=settings.lease_ms, model="", snapshot=snapshot)
    membership.on_removed = signals.stopping.set
    mark = StartMark(store, pool.keys, origin=settings.mark_origin, files=settings.files)
    stall_s = settings.load_stall_s
    starting = Starting(membership, mark, clock, build, files=settings.files, waits=settings.waits, stall_s=stall_s)
    running = asyncio.create_task(starting.run())
    stop = asyncio.create_task(signals.stopping.wait())
    await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    is_stalled = running.done() and isinstance(running.exception(), LoadStalled)
    await withdraw(membership, *([] if running.done() else [starting.interrupted()]))
    if is_stalled:
        log.critical("the loading hangs; this process ends", how=str(running.exception()))
        die_hanging()
    if not running.done():
        log.info("stopped while loading")
        logs.flush()
        os._exit(0)
    return await running


async def withdraw(membership: Membership, *others: Awaitable[Any]) -> None:
    """Leave the pool without anything to hand over; not for long."""
    with contextlib.suppress(TimeoutError, *TROUBLE):
        async with asyncio.timeout(WITHDRAW_S):
            await asyncio.gather(membership.withdraw(), *others)


def die_hanging() -> NoReturn:
    """The thread that hangs cannot be ended, only its process; where Python's threads stand goes to stderr."""
    logs.flush()
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_HANGS)
