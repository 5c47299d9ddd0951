"""`paddler bench` without its command line: a plan, and what was measured."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from paddler.bench.client import Asking, Target
from paddler.bench.plan import Bench, Plan
from paddler.bench.run import Load, Runner
from paddler.bench.summary import Summary
from paddler.bench.workload import Shape, Span
from paddler.clock import SystemClock

ONE = Span(1, 1)


def shape(**fields: Any) -> Shape:
    known: dict[str, Any] = {"prompt_tokens": Span(8, 8), "output_tokens": Span(4, 4), "turns": ONE}
    return Shape(**known | fields)


def plan(*urls: str, load: Load | None = None, asking: Asking | None = None, **fields: Any) -> Plan:
    """Four conversations of one turn, two at once, of targets that are not asked how long words are."""
    known: dict[str, Any] = {
        "targets": [Target(f"t{number}", url, "default") for number, url in enumerate(urls)],
        "asking": asking or Asking(timeout_s=20.0),
        "shape": shape(),
        "load": load or Load(concurrency=2, max_requests=4),
        "tokens_per_word": 1.0,
    }
    return Plan(**known | fields)


def ignore(label: str, number: int, runner: Runner | None) -> None:
    """Of whom nobody watches."""


async def measure(plan: Plan, stop: asyncio.Event | None = None) -> Bench:
    bench = Bench(plan, SystemClock(), ignore)
    await bench.run(stop or asyncio.Event())
    return bench


async def summary_of(plan: Plan) -> Summary:
    """Of the only run."""
    ((summary,),) = [one.rounds for one in (await measure(plan)).measured]
    return summary


def texts_of(bodies: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [[message["content"] for message in body["messages"]] for body in bodies]
