"""`paddler probe`: exit code 0 if a process does its work, else 1 and a line that says what is wrong.

For the health checks of containers: it takes the same flags and variables as the process beside it, so that in the
environment of a container nothing needs to be said twice.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import rich_click as click

from paddler.jobs.overview import Overview
from paddler.probe.services import trouble_of_service
from paddler.redis_cli import Server, run
from paddler.settings import ADDRESS, Address, aws_options, option, pool_option, redis_options
from paddler.store.client import Store
from paddler.tls_options import tls_options

PATIENCE_S = 5.0


@click.group(name="probe")
def command() -> None:
    """Say by the exit code whether a process does its work, for the health checks of containers.

    Each takes the flags and variables of the process that it asks about."""


@command.command(name="balancer")
@option("--management-addr", type=ADDRESS, default="127.0.0.1:8060", help="As the balancer's.")
@option("--ready", is_flag=True, help="Ask whether it can serve (/ready), and not only whether it lives (/health).")
@aws_options
@tls_options
def balancer_command(
    *, management_addr: Address, ready: bool, tls_cert: Path | None, tls_key: Path | None, tls_client_ca: Path | None
) -> None:
    """Whether the balancer on this machine answers."""
    del tls_key  # it is the balancer's; we only have to know that it speaks TLS
    path = "/ready" if ready else "/health"
    wants_client = tls_client_ca is not None
    trouble = trouble_of_service(
        management_addr, path, is_tls=tls_cert is not None, wants_client=wants_client, timeout_s=PATIENCE_S
    )
    _end(trouble)


@command.command(name="agent")
@option("--name", help="As the agent's; by default the host's name.")
@option("--ready", is_flag=True, help="Ask whether it serves its model, and not only whether its lease is valid.")
@pool_option
@redis_options
def agent_command(*, name: str | None, ready: bool, pool: str, redis_url: str, redis_prefix: str) -> None:
    """Whether an agent of this name is in the pool, with a lease, which its engine's progress renews."""
    wanted = name or socket.gethostname()
    _end(_ask(Server(redis_url, redis_prefix), lambda store: trouble_of_agent(store, pool, wanted, ready=ready)))


@command.command(name="worker")
@redis_options
def worker_command(*, redis_url: str, redis_prefix: str) -> None:
    """Whether the upkeep is done: of several workers one does it, and any of them counts."""
    _end(_ask(Server(redis_url, redis_prefix), trouble_of_upkeep))


async def trouble_of_agent(store: Store, pool: str, name: str, *, ready: bool = False) -> str | None:
    """Why the agent cannot be counted on, or None. Raises what Redis raises."""
    lanes = [lane for lane in (await Overview(store).pool(pool)).lanes if lane.name == name]
    alive = [lane for lane in lanes if not lane.is_lost]
    if not alive:
        return (
            f"agent {name} of pool {pool} has lost its lease" if lanes else f"there is no agent {name} in pool {pool}"
        )
    if ready and not any(lane.state == "ready" for lane in alive):
        return f"agent {name} of pool {pool} is {alive[0].state}, not ready"
    return None


async def trouble_of_upkeep(store: Store) -> str | None:
    """Raises what Redis raises."""
    return None if await Overview(store).is_worker_running() else "no worker has done the upkeep in the last seconds"


def _ask(server: Server, about: Callable[[Store], Awaitable[str | None]]) -> str | None:
    async def within(store: Store) -> str | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await about(store)
        except TimeoutError:
            return f"Redis has not answered within {PATIENCE_S:.0f} s"

    return run(server, within)


def _end(trouble: str | None) -> None:
    if trouble is not None:
        raise click.ClickException(f"{trouble}.")
