"""`paddler up`: the composition root of the supervising process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from click.core import ParameterSource

from paddler import logs
from paddler.clock import Clock, SystemClock
from paddler.cors_options import cors_options
from paddler.desired.database import state_database_option
from paddler.engine_flags import engine_options
from paddler.host_options import host_options
from paddler.kv_flags import kv_settings, refuse_kv_flags, up_kv_options
from paddler.metrics.options import statsd_options
from paddler.panel_options import DEFAULT_ADDR, dashboard_option, panel_address
from paddler.settings import (
    ADDRESS,
    DEFAULT_REDIS_PREFIX,
    REDIS_PREFIX,
    REDIS_URL,
    Address,
    aws_options,
    current_context,
    insecure_option,
    log_options,
    option,
    redis_access_options,
    sharing_options,
    waiting_options,
)
from paddler.store.client import TROUBLE, Store, connect
from paddler.tenants.keys import ApiKeys
from paddler.tls_options import tls_files, tls_options
from paddler.tracing.options import otlp_option
from paddler.up import valkey
from paddler.up.agents import AGENT_COUNT
from paddler.up.output import Output
from paddler.up.plan import Settings, child_environment, paddler_specs, without_password
from paddler.up.ports import settle_addresses
from paddler.up.problems import CannotStart
from paddler.up.ready import is_process, ready_message, wait_for_agent, wait_for_balancer
from paddler.up.runner import Runner
from paddler.up.seed import seed
from paddler.up.starter import find_starter
from paddler.up.supervisor import Spec

FIRST_WAIT_MS = 60_000
_FILE = click.Path(exists=True, dir_okay=False, readable=True, resolve_path=True, path_type=Path)


@click.command(name="up")
@option(
    "--model",
    type=_FILE,
    help="The GGUF file to serve; by default what the desired state wants, at first the starter model, "
    "SmolLM2-135M-Instruct.",
)
@option("--model-name", help="The name clients may give as `model`; by default the GGUF's own.")
@option(
    "--agents",
    type=AGENT_COUNT,
    default="1",
    help="How many agents to start, 0 to add them by hand; or 0..2, and they come and go with the requests.",
)
@option(
    "--cooldown",
    type=click.IntRange(min=0),
    default=30_000,
    help="With such a range: milliseconds for which nobody must have needed an agent before it ends.",
)
@option("--slots", type=click.IntRange(1, 256), default=4, help="Requests generated at once by each agent.")
@option("--context-size", type=click.IntRange(min=64), help="Tokens of context of an agent, shared by its slots.")
@engine_options
@up_kv_options
@option(
    "--engine", type=click.Choice(["llama", "scripted"]), default="llama", help="scripted needs no model: for tests."
)
@option("--inference-addr", type=ADDRESS, default="127.0.0.1:8061", help="Where clients send their requests.")
@option("--management-addr", type=ADDRESS, default="127.0.0.1:8060", help="Where operators look after the fleet.")
@option("--compat-openai-addr", type=ADDRESS, default="127.0.0.1:8070", help="The OpenAI and Anthropic routes alone.")
@option("--web-admin-panel-addr", type=ADDRESS, default=DEFAULT_ADDR, help="Where people look after the fleet.")
@dashboard_option
@cors_options
@host_options
@aws_options
@tls_options
@waiting_options
@insecure_option
@sharing_options
@state_database_option
@option("--redis-url", type=REDIS_URL, help="Use this Redis or Valkey instead of starting one.")
@redis_access_options
@option("--redis-prefix", type=REDIS_PREFIX, default=DEFAULT_REDIS_PREFIX, help="What every key in Redis begins with.")
@option(
    "--state-dir",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    help="Where the embedded Valkey keeps the queue; by default below $XDG_STATE_HOME or ~/.local/state.",
)
@statsd_options
@otlp_option
@log_options
def command(**given: Any) -> None:
    """Start everything on this machine: Redis, balancer, agents, worker, a model.

    A process that crashes is started again. Ctrl-C stops everything; the queue is kept for the next time.
    """
    if given["log_format"] == "auto":  # the children write to a pipe, whatever our own stderr is
        given["log_format"] = "console" if sys.stderr.isatty() else "json"
    given["state_dir"] = given["state_dir"] or default_state_dir(os.environ)
    logs.configure("up", given["log_level"], given["log_format"])
    given["web_admin_panel_addr"] = panel_address(
        given["web_admin_panel_addr"], is_dashboard_enabled=given.pop("management_dashboard_enable")
    )
    _check_kv(given)
    settings = Settings(**given)
    if settings.agents.most and not settings.agents.least and _is_default("buffered_request_timeout"):
        # The first request waits for a model to be loaded.
        settings = msgspec.structs.replace(settings, buffered_request_timeout=FIRST_WAIT_MS)
    tls_files(settings.tls_cert, settings.tls_key, settings.tls_client_ca, SystemClock().wall())
    try:
        failure = asyncio.run(run(settings, os.environ, SystemClock()))
    except CannotStart as error:
        raise click.ClickException(str(error)) from None
    if failure is not None:
        sys.exit(1)


def _check_kv(given: Mapping[str, Any]) -> None:
    """As each agent would. Raises `UsageError`."""
    if given["engine"] != "llama":
        refuse_kv_flags(current_context(), given["engine"])
        return
    told = {**given, "kv_advertise": None}
    kv_settings(current_context(), told, given["redis_url"], given["kv_ram"], SystemClock().wall())
    address: Address | None = given["kv_addr"]
    if address is not None and address.port and (given["agents"].most or given["agents"].least) > 1:
        raise click.UsageError(f"--kv-addr {address} is room for one agent: port 0 gives each its own.")


def _is_default(name: str) -> bool:
    return current_context().get_parameter_source(name) is ParameterSource.DEFAULT


async def run(settings: Settings, environment: Mapping[str, str], clock: Clock) -> str | None:
    """Start the fleet and stay until it is stopped (None) or cannot go on (why). Raises `CannotStart` before that."""
    began = clock.monotonic()
    with ExitStack() as stack:
        specs: list[Spec] = []
        if settings.redis_url is None:
            embedded = await valkey.reserve(settings.state_dir, _runtime_dirs(environment), clock)
            stack.callback(embedded.close)
            redis_url = embedded.url
            specs.append(embedded.spec(settings.log_level))
        else:
            redis_url = settings.redis_url
            if trouble := await valkey.trouble_with(redis_url):
                raise CannotStart(f"--redis-url {without_password(redis_url)} cannot be used: {trouble}")
        # After the lock: who starts a second one by mistake is told of the first, not of its ports.
        settings = _with_free_ports(settings)
        specs += paddler_specs(settings, awaits=valkey.NAME if settings.redis_url is None else None)
        output = Output(sys.stderr, is_json=settings.log_format == "json", names=[spec.name for spec in specs])
        runner = Runner(
            specs,
            environment=child_environment(environment, redis_url, settings.kv_url),
            output=output,
            clock=clock,
            probes={valkey.NAME: partial(valkey.wait_until_ready, redis_url, clock)} if not settings.redis_url else {},
        )
        announcing = asyncio.create_task(_announce(settings, redis_url, runner, output, clock, began))
        seeding = asyncio.create_task(_seed(settings, redis_url, runner, output, clock))
        try:
            failure = await runner.run()
            return seeding.result() or failure if seeding.done() else failure
        finally:
            for task in (announcing, seeding):
                task.cancel()
            await asyncio.wait({announcing, seeding})


async def _seed(settings: Settings, redis_url: str, runner: Runner, output: Output, clock: Clock) -> str | None:
    """Have the agents find a desired state. Returns why that cannot be, and everything stops then."""
    if not settings.follows:
        return None
    store = connect(redis_url, settings.redis_prefix)
    try:
        is_own = settings.redis_url is None
        told = await seed(store, find_starter, clock, settings.state_database, is_own=is_own)
        if told is not None:
            output.say(told)
    except CannotStart as error:
        output.say(str(error), is_error=True)
        runner.stop()
        return str(error)
    finally:
        await store.close()
    return None


async def _announce(
    settings: Settings, redis_url: str, runner: Runner, output: Output, clock: Clock, began: float
) -> None:
    await wait_for_balancer(settings, clock)
    abilities: list[str] = []
    store = connect(redis_url, settings.redis_prefix)
    try:
        if settings.agents.least:
            # An autoscaler's agents are no children of ours.
            has_children = settings.agents.most is None

            def is_ours(pid: int) -> bool:
                return pid in runner.pids.values() if has_children else is_process(pid)

            abilities = await wait_for_agent(store, is_ours, clock, output.say)
        has_keys = await _has_keys(store, clock)
    finally:
        await store.close()
    seconds = clock.monotonic() - began
    output.print(ready_message(settings, redis_url, _program(), seconds, abilities, has_keys=has_keys))


async def _has_keys(store: Store, clock: Clock) -> bool:
    with contextlib.suppress(*TROUBLE):
        return await ApiKeys(store, clock).num_keys() > 0
    return False


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """`paddler/up` in the XDG state directory."""
    base = environment.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "paddler" / "up"


def _runtime_dirs(environment: Mapping[str, str]) -> list[Path]:
    base = environment.get("XDG_RUNTIME_DIR", "")
    own = [Path(base) / "paddler"] if base.startswith("/") else []
    return [*own, Path(f"/tmp/paddler-{os.geteuid()}")]


def _program() -> str:
    """How the reader calls us from another terminal: by name where the shell finds that, else by path."""
    script = Path(sys.executable).with_name("paddler")
    if shutil.which("paddler"):
        return "paddler"
    return shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -P -m paddler"


def _with_free_ports(settings: Settings) -> Settings:
    names = ("management_addr", "inference_addr", "compat_openai_addr", "web_admin_panel_addr")
    wanted: dict[str, Address] = {f"--{name.replace('_', '-')}": getattr(settings, name) for name in names}
    settled = settle_addresses(wanted)
    return msgspec.structs.replace(settings, **dict(zip(names, settled.values(), strict=True)))
