"""`paddler agent`: load an engine, enter a pool, take requests while slots are free."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import rich_click as click
import uvloop
from msgspec import Struct
from msgspec.structs import replace

from paddler import __version__, logs
from paddler.clock import Clock, SystemClock
from paddler.engine import Engine, ModelError
from paddler.engine_flags import NAMES, engine_options, engine_settings
from paddler.engine_settings import EngineSettings
from paddler.logs import get_logger
from paddler.model_facts import encode_facts
from paddler.presence import Presence
from paddler.settings import log_options, option, pool_option, redis_options
from paddler.store.client import TROUBLE, Store, connect
from paddler.store.fitness import warn_of_faults
from workers.agent.loop import FLUSH_MS, AgentLoop
from workers.agent.mark import StartMark
from workers.agent.membership import Membership
from workers.agent.phases import Phase, Report
from workers.agent.scheduler import LONE_STEP_TARGET_S, PREFILL_STEP_TARGET_S
from workers.agent.shards import shards_of
from workers.agent.starting import Build, LoadStalled, Starting
from workers.agent.watchdog import EngineHangs, Watchdog

log = get_logger(__name__)

ENGINE_STOP_S = 2.0
WITHDRAW_S = 0.5
REGISTER_RETRY_S = 0.5
EXIT_CONFIG = 78
EXIT_HANGS = 70
"""EX_SOFTWARE: a supervisor starts the agent again."""
LOAD_STALL_FACTOR = 10
"""Loading may stand still for so many times as long as a step may take: a disk is waited for."""
SWITCH_S = 0.0005
"""How long the engine thread may keep the interpreter while a token waits to be sent, or the loop while a step waits to
be begun; Python's own 5 ms are some steps of a small model."""


class AgentSettings(Struct, frozen=True, kw_only=True):
    """What an agent is apart from its engine. `files` are what that is made of, the model first; `waits` is False if a
    model that cannot be served ends the agent. `slots` is what it will have."""

    pool: str
    name: str
    lease_ms: int
    grace_ms: int
    flush_ms: int
    hang_ms: int
    waits: bool
    files: tuple[Path, ...]
    slots: int = 0


async def serve(store: Store, build: Build, settings: AgentSettings) -> int:
    """Run until a signal or a failed engine. Returns the exit code."""
    clock = SystemClock()
    stopping, hurrying = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurrying if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    stop = asyncio.create_task(stopping.wait())
    try:
        engine = await _start(store, build, settings, clock, stop)
    except ModelError as error:
        # EX_CONFIG: starting again would change nothing, and `paddler up` stops with this line.
        print(f"paddler agent: {error}", file=sys.stderr)
        await store.close()
        return EXIT_CONFIG
    snapshot = {
        "build": engine.info.build,
        "context_size": engine.info.context_size,
        "bytes_per_token": engine.info.bytes_per_token,
        "max_parked": engine.info.max_parked,
        "abilities": " ".join(engine.info.abilities),
        "facts": "" if engine.info.facts is None else encode_facts(engine.info.facts),
        **_origin(settings),
    }
    times = {"lease_ms": settings.lease_ms, "flush_ms": settings.flush_ms}
    agent = AgentLoop(store, store.pool(settings.pool), engine, clock, name=settings.name, snapshot=snapshot, **times)
    agent.engine.start_thread()
    while not stopping.is_set():
        try:
            await agent.register()
            break
        except TROUBLE as error:
            log.warning("cannot register, trying again", error=str(error))
            await clock.sleep(REGISTER_RETRY_S)
    checking = asyncio.create_task(warn_of_faults(store, clock))
    watchdog = Watchdog(agent.engine, clock, agent.give_up, settings.hang_ms / 1000)
    presence = asyncio.create_task(Presence(store, clock, "agent", settings.name).run())
    tasks = [asyncio.create_task(one) for one in (*agent.loops(), watchdog.run())]
    await asyncio.wait({stop, agent.engine.failed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if stopping.is_set():
        leaving = asyncio.create_task(agent.leave(settings.grace_ms / 1000))
        hurry = asyncio.create_task(hurrying.wait())
        await asyncio.wait({leaving, hurry, agent.engine.failed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if leaving.done() and (error := leaving.exception()):
            log.warning("could not hand over; the lease will end by itself", error=str(error))
        leaving.cancel()
    for task in tasks:
        if task.done() and (failure := task.exception()):
            if isinstance(failure, EngineHangs):
                _die_hanging()
            log.error("a loop of the agent failed", exc_info=failure)
            code = 1
        task.cancel()
    checking.cancel()
    presence.cancel()
    await asyncio.gather(checking, presence, *tasks, return_exceptions=True)
    code = 1 if agent.engine.failed.done() else code
    agent.engine.stop(ENGINE_STOP_S)
    await store.close()
    return code


async def _start(store: Store, build: Build, settings: AgentSettings, clock: Clock, stop: asyncio.Task[Any]) -> Engine:
    """Load the engine, visibly. Raises `ModelError`. A signal ends the process: the loading cannot be interrupted."""
    snapshot = {"state": "loading", "slots": 0, "name": settings.name, **_origin(settings)}
    pool = store.pool(settings.pool)
    membership = Membership(store, pool, clock, lease_ms=settings.lease_ms, model="", snapshot=snapshot)
    stall_s = settings.hang_ms * LOAD_STALL_FACTOR / 1000
    mark = StartMark(store, pool.keys, origin=f"{socket.gethostname()} {settings.name}", files=settings.files)
    starting = Starting(membership, mark, clock, build, files=settings.files, waits=settings.waits, stall_s=stall_s)
    running = asyncio.create_task(starting.run())
    await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
    is_stalled = running.done() and isinstance(running.exception(), LoadStalled)
    leaving = [membership.withdraw()] if running.done() else [membership.withdraw(), starting.interrupted()]
    with contextlib.suppress(TimeoutError, *TROUBLE):
        async with asyncio.timeout(WITHDRAW_S):
            await asyncio.gather(*leaving)
    if is_stalled:
        log.critical("the loading hangs; this process ends", how=str(running.exception()))
        _die_hanging()
    if not running.done():
        log.info("stopped while loading")
        os._exit(0)
    return await running


def _die_hanging() -> NoReturn:
    """The thread that hangs cannot be ended, only its process; where Python's threads stand goes to stderr."""
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_HANGS)


def _origin(settings: AgentSettings) -> dict[str, str | int]:
    path = str(settings.files[0]) if settings.files else ""
    told = {"desired_slots": settings.slots, "model_path": path}
    return {"version": __version__, "host": socket.gethostname(), "pid": os.getpid(), **told}


def lone_step_s(lease_ms: int) -> float:
    """A fifth of the lease: on a machine that has become slower a step takes longer than was aimed at."""
    return min(LONE_STEP_TARGET_S, max(PREFILL_STEP_TARGET_S, lease_ms / 5000))


def build_llama(settings: EngineSettings, report: Report, is_suspect: bool) -> Engine:
    from workers.agent.probe import check

    check(settings, _import_binding, is_suspect=is_suspect)
    from workers.agent.loading import load

    return load(settings, report)


def _import_binding() -> None:
    # It takes a second to load and only this engine needs it.
    import_module("workers.agent.llama")


def build_scripted(
    report: Report,
    _is_suspect: bool,
    *,
    slots: int,
    step_ms: float,
    load_ms: int,
    model_name: str | None,
    context_size: int,
) -> Engine:
    from paddler.testing.scripted import ScriptedEngine, pretend_to_load

    pretend_to_load(load_ms / 1000, partial(report, Phase.LOADING))
    return ScriptedEngine(
        slots=slots, step_s=step_ms / 1000, model=model_name or "scripted", context_size=context_size, is_deadly=True
    )


@click.command(name="agent")
@option("--model", type=click.Path(path_type=Path), help="The GGUF file to serve; required with --engine llama.")
@option("--model-name", help="The name clients may give as `model`; by default the GGUF's own.")
@option("--slots", type=click.IntRange(1, 256), required=True, help="Requests generated at once.")
@option("--name", help="A label for people; by default the host's name.")
@pool_option
@option("--context-size", type=click.IntRange(min=64), default=8192, help="Tokens of context, shared by all slots.")
@engine_options
@option(
    "--on-model-error",
    type=click.Choice(["wait", "exit"]),
    default="wait",
    help="wait: stay in the pool with the issue and try again when the file changes; exit: end with code 78.",
)
@option(
    "--hang-timeout",
    "hang_ms",
    type=click.IntRange(min=0),
    default=60_000,
    help="After so long a step of the engine is interrupted, and the agent ends if that does not help, ms; 0: never.",
)
@option(
    "--lease", "lease_ms", type=click.IntRange(min=500), default=5000, help="Lost after this long without progress, ms."
)
@option(
    "--grace", "grace_ms", type=click.IntRange(min=0), default=20_000, help="Time for running requests on SIGTERM, ms."
)
@option(
    "--flush-interval",
    "flush_ms",
    type=click.IntRange(0, 1000),
    default=FLUSH_MS,
    help="Tokens that come faster than this after one another are sent together, ms; 0 sends each.",
)
@option(
    "--engine", type=click.Choice(["llama", "scripted"]), default="llama", help="scripted needs no model: for tests."
)
@option(
    "--scripted-step",
    "scripted_step_ms",
    type=click.FloatRange(min=0),
    default=0.0,
    help="A step of the scripted engine, ms.",
)
@option(
    "--scripted-load", "scripted_load_ms", type=click.IntRange(min=0), default=0, help="The loading of one takes, ms."
)
@redis_options
@log_options
def command(
    *,
    model: Path | None,
    model_name: str | None,
    slots: int,
    name: str | None,
    pool: str,
    context_size: int,
    on_model_error: str,
    hang_ms: int,
    lease_ms: int,
    grace_ms: int,
    flush_ms: int,
    engine: str,
    scripted_step_ms: float,
    scripted_load_ms: int,
    redis_url: str,
    redis_prefix: str,
    log_level: str,
    log_format: str,
    **given: Any,
) -> None:
    """Run an agent: serve one model on a number of slots."""
    logs.configure("agent", log_level, log_format)
    faulthandler.enable()  # a native crash says where Python was
    sys.setswitchinterval(SWITCH_S)
    files: tuple[Path, ...] = ()
    if engine == "llama":
        if model is None:
            raise click.UsageError("--model is required with --engine llama: the path of a GGUF file.")
        values = {one: given[one] for one in NAMES}
        wanted = engine_settings(
            model=model, values=values, slots=slots, context_size=context_size, model_name=model_name
        )
        files = (*shards_of(model), *map(Path, wanted.other_files))

        build: Build = partial(build_llama, replace(wanted, lone_step_s=lone_step_s(lease_ms)))
    else:
        own = {"step_ms": scripted_step_ms, "load_ms": scripted_load_ms, "context_size": context_size}
        build = partial(build_scripted, slots=slots, model_name=model_name, **own)
    settings = AgentSettings(
        pool=pool,
        name=name or socket.gethostname(),
        lease_ms=lease_ms,
        grace_ms=grace_ms,
        flush_ms=flush_ms,
        hang_ms=hang_ms,
        waits=on_model_error == "wait",
        files=files,
        slots=slots,
    )
    sys.exit(uvloop.run(serve(connect(redis_url, redis_prefix), build, settings)))
