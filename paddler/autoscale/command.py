"""`paddler autoscale`: the composition root."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping
from typing import Any

import rich_click as click
from msgspec import Struct

from paddler import logs
from paddler.agent_access import without_files, without_login
from paddler.autoscale.driver import Driver
from paddler.autoscale.local import LocalDriver, agent_command
from paddler.autoscale.loop import Autoscaler
from paddler.autoscale.policy import Policy
from paddler.autoscale.scaler import Scaler
from paddler.autoscale.shell import ShellDriver
from paddler.autoscale.status import show_status
from paddler.clock import Clock, SystemClock
from paddler.presence import present
from paddler.settings import (
    current_context,
    env_name,
    log_options,
    option,
    pool_option,
    redis_options,
)
from paddler.store.client import connect

OWN_FLAGS = ("--name", "--pool", "--slots", "--redis-prefix")
"""Flags of an agent that the autoscaler gives it."""
ACCESS_FLAGS = ("--redis-username", "--redis-password-file", "--redis-tls-")
"""With any of them agents have a way into Redis of their own, and nothing of the autoscaler's."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class Settings(Struct, frozen=True, kw_only=True):
    """`driver` is `local` or `exec`; durations are milliseconds."""

    policy: Policy
    pool: str
    driver: str
    agent_name: str
    include_batch: bool
    poll_interval: int
    stop_timeout: int
    on_death: str
    start_command: str | None
    stop_command: str | None
    command_timeout: int
    command_retries: int
    agent_flags: tuple[str, ...]
    redis_url: str
    redis_prefix: str
    log_level: str
    log_format: str


def _check_name(_context: click.Context, _param: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r}: lower-case letters, digits and dashes, at most 40, no dash at the ends.")
    return value


@click.command(name="autoscale", context_settings={"ignore_unknown_options": False})
@option("--min", "least", type=click.IntRange(0, 1000), default=0, help="So many agents are always kept; 0 is allowed.")
@option("--max", "most", type=click.IntRange(1, 1000), default=1, help="More agents than this are never started.")
@option("--slots", type=click.IntRange(1, 256), default=4, help="The slots of each agent.")
@option(
    "--target-demand-per-slot",
    "target",
    type=click.FloatRange(min=0, max=1000, min_open=True),
    default=1.0,
    help="Unfinished requests that a slot is to have; above 1 some wait.",
)
@option("--include-batch", is_flag=True, help="Let requests of class batch count, too.")
@option(
    "--cooldown",
    type=click.IntRange(min=0),
    default=60_000,
    help="Milliseconds for which fewer agents must have been enough before any is stopped.",
)
@option("--driver", type=click.Choice(["local", "exec"]), default="local", help="Processes here, or your own commands.")
@option("--start-command", help="exec: a shell command that has an agent named $PADDLER_NAME come into the pool.")
@option("--stop-command", help="exec: one that ends it; called when it is drained and idle.")
@option(
    "--command-timeout",
    type=click.IntRange(min=1),
    default=120_000,
    help="exec: milliseconds after which a command is killed.",
)
@option(
    "--command-retries", type=click.IntRange(0, 100), default=2, help="exec: how often one that failed is called again."
)
@option(
    "--start-timeout",
    type=click.IntRange(min=1),
    default=300_000,
    help="Milliseconds within which an agent has to come into its pool; it may load its model longer.",
)
@option(
    "--stop-timeout",
    type=click.IntRange(min=1),
    default=60_000,
    help="local: milliseconds after which an agent that was told to end is killed.",
)
@option(
    "--on-death",
    type=click.Choice(["keep", "end"]),
    default="keep",
    help="local: what becomes of agents when the autoscaler is killed. Those that are kept are found again.",
)
@option("--agent-name", callback=_check_name, default="auto", help="Agents are called this, a dash and a number.")
@option(
    "--poll-interval",
    type=click.IntRange(min=100),
    default=5000,
    help="Milliseconds between two looks when nothing happens; a request is noticed at once.",
)
@option("--status", is_flag=True, help="Print what the autoscaler of the pool does, and start nothing.")
@option("--json", "as_json", is_flag=True, help="With --status: print JSON, for programs.")
@pool_option
@redis_options
@log_options
@click.argument("agent_flags", nargs=-1, type=click.UNPROCESSED)  # pyright: ignore[reportUnknownMemberType]  # as settings.option
def command(*, status: bool, as_json: bool, **given: Any) -> None:
    """Start agents when requests need them and stop those that nobody needs, between --min and --max.

    What stands behind -- are flags of the agents: paddler autoscale --max 2 -- --model model.gguf
    """
    if status:
        show_status(given["redis_url"], given["redis_prefix"], given["pool"], as_json=as_json)
        return
    if as_json:
        raise click.UsageError("--json needs --status.")
    settings = settings_of(given)
    logs.configure("autoscale", settings.log_level, settings.log_format)
    environment = environment_of_agents(os.environ, settings)
    asyncio.run(serve(settings, environment, SystemClock()))


def settings_of(given: dict[str, Any]) -> Settings:
    """Raises `UsageError`."""
    policy = Policy(
        least=given.pop("least"),
        most=given.pop("most"),
        slots=given.pop("slots"),
        target=given.pop("target"),
        cooldown_s=given.pop("cooldown") / 1000,
        start_timeout_s=given.pop("start_timeout") / 1000,
    )
    settings = Settings(policy=policy, **given)
    if policy.least > policy.most:
        raise click.UsageError(f"--min {policy.least} is more than --max {policy.most}.")
    commands = {"--start-command": settings.start_command, "--stop-command": settings.stop_command}
    for flag, text in commands.items():
        if settings.driver == "exec" and not (text or "").strip():
            raise click.UsageError(f"--driver exec needs {flag}: a shell command.")
        if settings.driver == "local" and text is not None:
            raise click.UsageError(f"{flag} needs --driver exec.")
    if settings.driver == "exec" and settings.agent_flags:
        raise click.UsageError("Flags of agents are for --driver local; put them into --start-command.")
    for flag in OWN_FLAGS:
        if any(word == flag or word.startswith(f"{flag}=") for word in settings.agent_flags):
            instead = "--agent-name gives agents their names" if flag == "--name" else f"give {flag} before the --"
            raise click.UsageError(f"{flag} is not for agents alone: {instead}.")
    return settings


def environment_of_agents(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Of agents and commands: ours without our own flags' variables, which would count twice, and with what says where
    the pool is. By the environment, as a command line can be read by everybody on the machine."""
    own = {name for one in current_context().command.params for name in _variables(one)}
    kept = {name: value for name, value in environment.items() if name not in own}
    url = settings.redis_url
    if any(word.startswith(ACCESS_FLAGS) for word in settings.agent_flags):
        url = without_files(without_login(url))  # with both a user would be named twice
    return kept | {
        env_name("--redis-url"): url,
        env_name("--redis-prefix"): settings.redis_prefix,
        env_name("--pool"): settings.pool,
        env_name("--slots"): str(settings.policy.slots),
    }


def _variables(parameter: click.Parameter) -> tuple[str, ...]:
    names = parameter.envvar
    return (names,) if isinstance(names, str) else tuple(names or ())


def driver_of(settings: Settings, environment: Mapping[str, str], clock: Clock) -> Driver:
    if settings.driver == "exec":
        assert settings.start_command is not None
        assert settings.stop_command is not None
        timeout_s = settings.command_timeout / 1000
        return ShellDriver(
            settings.start_command,
            settings.stop_command,
            environment,
            clock,
            timeout_s=timeout_s,
            retries=settings.command_retries,
        )
    logged = ("--log-level", settings.log_level, "--log-format", settings.log_format)
    return LocalDriver(
        agent_command(*logged, *settings.agent_flags),
        environment,
        clock,
        stop_s=settings.stop_timeout / 1000,
        ends_when_killed=settings.on_death == "end",
    )


async def serve(settings: Settings, environment: Mapping[str, str], clock: Clock) -> None:
    """Until a signal."""
    store = connect(settings.redis_url, settings.redis_prefix)
    driver = driver_of(settings, environment, clock)
    autoscaler = Autoscaler(
        store,
        clock,
        Scaler(settings.policy, settings.agent_name, ends_with_us=driver.ends_with_us),
        driver,
        pool=settings.pool,
        driver_name=settings.driver,
        poll_s=settings.poll_interval / 1000,
        counts_batch=settings.include_batch,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, autoscaler.stop)
    async with present(store, clock, "autoscaler", settings.pool):
        await autoscaler.run()
    await store.close()
