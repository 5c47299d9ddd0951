"""`paddler agent`: load an engine, enter a pool, take requests while slots are free."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
import uvloop
from click.core import ParameterSource
from msgspec import Struct
from msgspec.structs import replace

from paddler import logs
from paddler.clock import SystemClock
from paddler.desired.store import DesiredStates
from paddler.engine_flags import NAMES, engine_options, engine_settings
from paddler.engine_settings import EngineSettings
from paddler.ids import new_process_id
from paddler.kv_flags import DEFAULT_RAM, kv_options, kv_settings, refuse_kv_flags
from paddler.settings import aws_options, log_options, option, pool_option, redis_options
from paddler.store.client import Store, connect
from paddler.tracing.options import otlp_option, tracing_of
from workers.agent.builds import (
    build_scripted,
    check_llama,
    check_scripted,
    llama_build_of,
    scripted_build_of,
)
from workers.agent.fetch.adapters import build_with_adapters, local_files_of
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.flags import fetch_options, model_cache
from workers.agent.following import Follower
from workers.agent.loader import Build
from workers.agent.loop import FLUSH_MS
from workers.agent.preparation import Preparation
from workers.agent.redis_told import told_redis_options
from workers.agent.scheduler import LONE_STEP_TARGET_S, PREFILL_STEP_TARGET_S
from workers.agent.serving import AgentSettings, Signals, serve_pinned
from workers.agent.shards import shards_of
from workers.agent.standing import Standing
from workers.agent.upstream.flags import build_upstream, check_flags, upstream_options, upstream_settings
from workers.agent.wanted import adapters_of, follow_states, settings_for

if TYPE_CHECKING:
    from workers.agent.tiers.sharing import Sharing
    from workers.agent.with_tiers import OpenKeeper

SWITCH_S = 0.0005
"""How long the engine thread may keep the interpreter while a token waits to be sent, or the loop while a step waits to
be begun; Python's own 5 ms are some steps of a small model."""


def lone_step_s(lease_ms: int) -> float:
    """A fifth of the lease: on a machine that has become slower a step takes longer than was aimed at."""
    return min(LONE_STEP_TARGET_S, max(PREFILL_STEP_TARGET_S, lease_ms / 5000))


def _is_given(context: click.Context, name: str) -> bool:
    """Whether a flag or its variable was, and not its default."""
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _keeper_for(sharing: Sharing, cache: ModelCache, settings: EngineSettings) -> OpenKeeper:
    from workers.agent.tiers.opening import keeper_for  # which takes the binding with it

    return keeper_for(sharing, cache.root, SystemClock(), settings)


class Engines(Struct, frozen=True):
    """`check` looks at settings and files, `build_of` makes what loads them."""

    check: Callable[[EngineSettings], None]
    build_of: Callable[[EngineSettings], Build]


async def follow(
    store: Store,
    settings: AgentSettings,
    engines: Engines,
    own: Mapping[str, Any],
    cache: ModelCache,
    sharing: Sharing | None = None,
) -> int:
    """Serve what the pool's desired state wants until a signal or a failed engine. Returns the exit code."""
    clock, signals = SystemClock(), Signals()
    signals.listen()
    standing = Standing(clock)
    states = DesiredStates(store, clock)
    step_s = lone_step_s(settings.lease_ms)
    preparation = Preparation(
        partial(follow_states, states, settings.pool),
        cache,
        partial(settings_for, slots=settings.slots, own=own, lone_step_s=step_s),
        engines.check,
        standing,
        clock,
        adapters=partial(adapters_of, own=own),
    )
    code = await Follower(store, settings, preparation, engines.build_of, standing, clock, signals, sharing).run()
    await store.close()
    return code


@click.command(name="agent")
@option(
    "--model",
    type=click.Path(path_type=Path),
    help="The GGUF file to serve; without it the agent follows the pool's desired state.",
)
@option("--model-name", help="The name clients may give as `model`; by default the GGUF's own.")
@option(
    "--slots",
    type=click.IntRange(1, 256),
    help="Requests generated at once; required, but with --engine openai, where the server may tell.",
)
@option("--name", help="A label for people; by default the host's name.")
@pool_option
@option("--context-size", type=click.IntRange(min=64), default=8192, help="Tokens of context, shared by all slots.")
@engine_options
@kv_options
@aws_options
@fetch_options
@option(
    "--on-model-error",
    type=click.Choice(["wait", "exit"]),
    default="wait",
    help="With --model: wait: stay in the pool with the issue and try again when the file changes; exit: end with 78.",
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
    "--grace",
    "grace_ms",
    type=click.IntRange(min=0),
    default=20_000,
    help="Time for running requests on SIGTERM, and when the model changes, ms.",
)
@option(
    "--flush-interval",
    "flush_ms",
    type=click.IntRange(0, 1000),
    default=FLUSH_MS,
    help="Tokens that come faster than this after one another are sent together, ms; 0 sends each.",
)
@option(
    "--engine",
    type=click.Choice(["llama", "openai", "scripted"]),
    default="llama",
    help="openai fronts another server that speaks OpenAI's protocol; scripted needs no model: for tests.",
)
@upstream_options
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
@option(
    "--scripted-follow",
    "scripted_follows",
    is_flag=True,
    help="The scripted engine follows the desired state, too, as if it had the model: for tests.",
)
@otlp_option
@told_redis_options
@redis_options
@log_options
@click.pass_context
def command(
    context: click.Context,
    *,
    model: Path | None,
    model_name: str | None,
    slots: int | None,
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
    scripted_follows: bool,
    otlp_endpoint: str | None,
    monitoring_ms: int,
    redis_url: str,
    redis_prefix: str,
    log_level: str,
    log_format: str,
    **given: Any,
) -> None:
    """Run an agent: serve the model that --model names, or the one that the pool's desired state wants, or what another
    server does."""
    num_slots = check_flags(context, engine, slots, given)
    kv = None
    if engine == "llama":
        kv = kv_settings(context, given, redis_url, given["kv_ram"], SystemClock().wall())
    else:
        refuse_kv_flags(context, engine)
    logs.configure("agent", log_level, log_format)
    faulthandler.enable()  # a native crash says where Python was
    sys.setswitchinterval(SWITCH_S)
    is_scripted = engine == "scripted"
    settings = AgentSettings(
        pool=pool,
        name=name or socket.gethostname(),
        lease_ms=lease_ms,
        grace_ms=grace_ms,
        flush_ms=flush_ms,
        hang_ms=hang_ms,
        waits=on_model_error == "wait",
        files=(),
        slots=num_slots,
        process_id=new_process_id("process"),
        tracing=tracing_of(otlp_endpoint, os.environ, "agent"),
        monitoring_ms=monitoring_ms,
    )
    values = {one: given[one] for one in NAMES}
    cache, sharing, keeper_for = model_cache(given, os.environ), None, None
    store = connect(redis_url, redis_prefix)
    if kv is not None:
        from workers.agent.tiers.sharing import Sharing

        values["kv_ram"] = values["kv_ram"] or DEFAULT_RAM
        settings = replace(settings, kv_grace_ms=kv.grace_ms)
        sharing = Sharing(kv, store, store.pool(pool), SystemClock())
        keeper_for = partial(_keeper_for, sharing, cache)
    scripted = {"step_ms": scripted_step_ms, "load_ms": scripted_load_ms}
    if model is None and (scripted_follows or engine == "llama"):
        if on_model_error == "exit":
            raise click.UsageError("--on-model-error exit needs --model: an agent that follows its pool stays in it.")
        own = {one: value for one, value in values.items() if value is not None}
        if model_name is not None:
            own["model_name"] = model_name
        if _is_given(context, "context_size"):
            own["context_size"] = context_size
        engines = Engines(check_llama, partial(llama_build_of, keeper_for=keeper_for))
        if is_scripted:
            engines = Engines(check_scripted, partial(scripted_build_of, **scripted))
        sys.exit(uvloop.run(follow(store, settings, engines, own, cache, sharing)))
    build: Build
    if engine == "openai":
        asked = upstream_settings(
            given, slots=slots, model_name=model_name, context_size=context_size, monitoring_ms=monitoring_ms
        )
        build = partial(build_upstream, asked)
    elif is_scripted:
        build = partial(build_scripted, slots=num_slots, model_name=model_name, context_size=context_size, **scripted)
    else:
        assert model is not None
        wanted = engine_settings(
            model=model, values=values, slots=num_slots, context_size=context_size, model_name=model_name
        )
        settings = replace(settings, files=(*shards_of(model), *local_files_of(wanted)))
        wanted = replace(wanted, lone_step_s=lone_step_s(lease_ms))
        build = partial(build_with_adapters, wanted, cache, keeper_for=keeper_for)
    sys.exit(uvloop.run(serve_pinned(store, build, settings, SystemClock(), sharing)))
