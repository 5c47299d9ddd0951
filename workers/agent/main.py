"""`paddler agent`: load an engine, enter a pool, take requests while slots are free."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import rich_click as click
import uvloop

from paddler import __version__, logs
from paddler.clock import SystemClock
from paddler.engine import Engine, ModelError
from paddler.logs import get_logger
from paddler.settings import log_options, option, pool_option, redis_options
from paddler.store.client import TROUBLE, Store, connect
from paddler.store.fitness import warn_of_faults
from workers.agent.loop import FLUSH_MS, AgentLoop

log = get_logger(__name__)

ENGINE_STOP_S = 2.0
REGISTER_RETRY_S = 0.5
EXIT_CONFIG = 78
SWITCH_S = 0.0005
"""How long the engine thread may keep the interpreter while a token waits to be sent, or the loop while a step waits to
be begun; Python's own 5 ms are some steps of a small model."""


async def serve(
    store: Store, build: Callable[[], Engine], *, pool: str, name: str, lease_ms: int, grace_ms: int, flush_ms: int
) -> int:
    """Run until a signal or a failed engine. Returns the exit code."""
    clock = SystemClock()
    stopping, hurrying = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurrying if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    # Loading takes seconds to minutes and the thread cannot be interrupted: a signal ends the process instead.
    loading = asyncio.create_task(asyncio.to_thread(build))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({loading, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        log.info("stopped while loading")
        os._exit(0)
    try:
        engine = await loading
    except ModelError as error:
        # EX_CONFIG: starting again would change nothing, and `paddler up` stops with this line.
        print(f"paddler agent: {error}", file=sys.stderr)
        return EXIT_CONFIG
    snapshot = {
        "version": __version__,
        "build": engine.info.build,
        "context_size": engine.info.context_size,
        "bytes_per_token": engine.info.bytes_per_token,
        "max_parked": engine.info.max_parked,
    }
    snapshot |= {"host": socket.gethostname(), "pid": os.getpid()}
    times = {"lease_ms": lease_ms, "flush_ms": flush_ms}
    agent = AgentLoop(store, store.pool(pool), engine, clock, name=name, snapshot=snapshot, **times)
    agent.engine.start_thread()
    while not stopping.is_set():
        try:
            await agent.register()
            break
        except TROUBLE as error:
            log.warning("cannot register, trying again", error=str(error))
            await clock.sleep(REGISTER_RETRY_S)
    checking = asyncio.create_task(warn_of_faults(store, clock))
    tasks = [asyncio.create_task(one) for one in agent.loops()]
    await asyncio.wait({stop, agent.engine.failed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if stopping.is_set():
        leaving = asyncio.create_task(agent.leave(grace_ms / 1000))
        hurry = asyncio.create_task(hurrying.wait())
        await asyncio.wait({leaving, hurry, agent.engine.failed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if leaving.done() and (error := leaving.exception()):
            log.warning("could not hand over; the lease will end by itself", error=str(error))
        leaving.cancel()
    for task in tasks:
        if task.done() and (failure := task.exception()):
            log.error("a loop of the agent failed", exc_info=failure)
            code = 1
        task.cancel()
    checking.cancel()
    await asyncio.gather(checking, *tasks, return_exceptions=True)
    code = 1 if agent.engine.failed.done() else code
    agent.engine.stop(ENGINE_STOP_S)
    await store.close()
    return code


def build_llama(
    model: Path,
    *,
    slots: int,
    context_size: int,
    threads: int | None,
    n_gpu_layers: int,
    model_name: str | None,
    multimodal_projection: Path | None,
    image_resize_to_fit: int,
) -> Engine:
    # Imported here: the binding takes a second to load and only this engine needs it.
    from workers.agent.llama_engine import EngineSettings, load

    settings = EngineSettings(
        model_path=str(model),
        slots=slots,
        context_size=context_size,
        threads=threads,
        n_gpu_layers=n_gpu_layers,
        model_name=model_name,
        multimodal_projection=None if multimodal_projection is None else str(multimodal_projection),
        image_resize_to_fit=image_resize_to_fit,
    )
    return load(settings)


def build_scripted(*, slots: int, step_ms: float, model_name: str | None, context_size: int) -> Engine:
    from paddler.testing.scripted import ScriptedEngine

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
@option("--threads", type=click.IntRange(1, 1024), help="CPU threads; by default one a core.")
@option("--n-gpu-layers", type=click.IntRange(min=-1), default=0, help="Layers on the GPU; -1 is all of them.")
@option(
    "--multimodal-projection",
    type=click.Path(path_type=Path),
    help="The GGUF file, often called mmproj, with which the model reads images; without it they are refused.",
)
@option(
    "--image-resize-to-fit",
    type=click.IntRange(1, 16384),
    default=1024,
    help="Images are made smaller until no side is longer than so many pixels.",
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
    threads: int | None,
    n_gpu_layers: int,
    multimodal_projection: Path | None,
    image_resize_to_fit: int,
    lease_ms: int,
    grace_ms: int,
    flush_ms: int,
    engine: str,
    scripted_step_ms: float,
    redis_url: str,
    redis_prefix: str,
    log_level: str,
    log_format: str,
) -> None:
    """Run an agent: serve one model on a number of slots."""
    logs.configure("agent", log_level, log_format)
    sys.setswitchinterval(SWITCH_S)
    if engine == "llama" and model is None:
        raise click.UsageError("--model is required with --engine llama: the path of a GGUF file.")

    def build() -> Engine:
        if engine == "scripted":
            return build_scripted(
                slots=slots, step_ms=scripted_step_ms, model_name=model_name, context_size=context_size
            )
        assert model is not None
        return build_llama(
            model,
            slots=slots,
            context_size=context_size,
            threads=threads,
            n_gpu_layers=n_gpu_layers,
            model_name=model_name,
            multimodal_projection=multimodal_projection,
            image_resize_to_fit=image_resize_to_fit,
        )

    store = connect(redis_url, redis_prefix)
    label = name or socket.gethostname()
    times = {"lease_ms": lease_ms, "grace_ms": grace_ms, "flush_ms": flush_ms}
    sys.exit(uvloop.run(serve(store, build, pool=pool, name=label, **times)))
