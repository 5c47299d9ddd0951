"""Who runs, and do they fit together?"""

from __future__ import annotations

from collections import Counter

from paddler import __version__
from paddler.doctor.finding import Finding, Level, fail, ok, warn
from paddler.doctor.redis_checks import CLOCK_WARN_MS, judge_clock
from paddler.entrance import Incompatible, look
from paddler.jobs.overview import Lane, Overview
from paddler.presence import Process, processes
from paddler.store.client import Store
from paddler.store.format import FORMAT


async def formats(store: Store) -> Finding:
    """Raises what Redis raises."""
    try:
        await look(store)
    except Incompatible as error:
        return fail("format", error.said, error.remedy)
    return ok("format", f"{FORMAT} of this command works with what is in Redis")


async def fleet(store: Store) -> list[Finding]:
    """Raises what Redis raises."""
    running = await processes(store)
    overview = Overview(store)
    lanes = [lane for pool in await overview.pools() for lane in pool.lanes]
    return [
        *_processes(running),
        *_worker(has_any=bool(running or lanes), is_running=await overview.is_worker_running()),
        *_clocks(running),
        *_agents(lanes),
    ]


def _processes(running: list[Process]) -> list[Finding]:
    if not running:
        return [
            warn(
                "fleet",
                "no process of Paddler has been heard of within a minute",
                "start `paddler balancer`, `paddler worker` and `paddler agent` on this Redis and prefix",
            )
        ]
    counts = Counter(process.kind for process in running)
    said = ", ".join(f"{number} {kind}{'s' * (number > 1)}" for kind, number in sorted(counts.items()))
    others = sorted({process.version for process in running} | {__version__})
    if len(others) == 1:
        return [ok("fleet", f"{said}, all of version {__version__}")]
    which = "; ".join(
        f"{version}: {', '.join(_named(one) for one in running if one.version == version) or 'this command'}"
        for version in others
    )
    return [
        warn(
            "fleet",
            f"{said}, of versions {which}",
            "versions may meet while one is rolled out: balancers and workers first, then agents; then be of one",
        )
    ]


def _worker(*, has_any: bool, is_running: bool) -> list[Finding]:
    if is_running:
        return [ok("worker", "upkeep runs")]
    if not has_any:
        return []
    return [
        fail(
            "worker",
            "no worker runs: what dead agents and balancers leave may stay behind, and batches wait",
            "start `paddler worker`; two of them on different machines are best",
        )
    ]


def _clocks(running: list[Process]) -> list[Finding]:
    wrong = [process for process in running if abs(process.clock_ms) >= CLOCK_WARN_MS]
    return [judge_clock("clocks", f"the clock of {_named(process)}", process.clock_ms) for process in wrong]


def _agents(lanes: list[Lane]) -> list[Finding]:
    found: list[Finding] = []
    for lane in lanes:
        name = lane.name or lane.agent
        issue = lane.issues[0] if lane.issues else None
        if lane.state == "failed":
            why = f"{issue.kind}: {issue.detail}" if issue else "it does not say why"
            remedy = issue.remedy if issue else "see the agent's log"
            what = "may not work here" if issue and issue.kind == "VersionIncompatible" else "cannot serve its model"
            found.append(fail("agents", f"{name} {what}: {why}", remedy))
        elif lane.lease_left_ms < 0:
            found.append(warn("agents", f"{name} is lost and not yet reaped", "if it stays so, start `paddler worker`"))
        elif issue is not None:
            found.append(warn("agents", f"{name} is {lane.state} and in trouble: {issue.detail}", issue.remedy))
        elif lane.state == "waiting" and lane.download.filename:
            found.append(ok("agents", f"{name} downloads its model: {lane.download.filename}, {lane.download}"))
        elif lane.state == "waiting":
            found.append(warn("agents", f"{name} waits for a model", "say which one: `paddler model use`"))
    if lanes and all(one.level is Level.OK for one in found):
        slots = sum(lane.slots for lane in lanes)
        found.append(ok("agents", f"{len(lanes)} with {slots} slots"))
    return found


def _named(process: Process) -> str:
    return f"{process.kind} {process.name or process.pid} on {process.host}"
