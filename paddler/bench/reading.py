"""The arguments of `paddler bench` as a plan, and those that were given as they are told in its report."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import rich_click as click
from click.core import ParameterSource

from paddler.bench.arrivals import Arrival
from paddler.bench.client import Asking
from paddler.bench.goals import OF_STREAMS
from paddler.bench.options import Place, read_extra, read_goals, read_target
from paddler.bench.plan import Plan, Replay
from paddler.bench.run import Load
from paddler.bench.trace import BadTrace, read_trace
from paddler.bench.workload import Shape, Span

DEFAULT_DURATION_MS = 30_000
DEFAULT_CONCURRENCY = 4
MAX_DRAWN_SEED = 1_000_000_000
SECRET = ("header", "compare_header")


def read_plan(given: dict[str, Any], now_s: float) -> Plan:
    """Of the flags by their names. Raises `UsageError`."""
    replay = _replay(given)
    rate, concurrency = given["rate"], given["concurrency"]
    if rate is not None and concurrency is not None:
        raise click.UsageError("--rate is an open loop and --concurrency a closed one: say one of them.")
    if rate is not None and replay is not None:
        raise click.UsageError("--trace has its own times, which --trace-speed stretches: leave --rate out.")
    if rate is None and replay is None:
        concurrency = concurrency or DEFAULT_CONCURRENCY
    duration_ms = given["duration"]
    if duration_ms is None and given["requests"] is None and replay is None:
        duration_ms = DEFAULT_DURATION_MS
    if duration_ms is not None and given["warmup"] >= duration_ms:
        raise click.UsageError(f"--warmup {given['warmup']} leaves nothing of --duration {duration_ms} to be counted.")
    targets = [read_target("--url", given["url"], *_access(given, ""), given["tls_ca"], now_s)]
    targets += [
        read_target("--compare", place, *_access(given, "compare_"), given["tls_ca"], now_s)
        for place in given["compare"]
    ]
    _check_targets(given)
    goals = read_goals(given["goodput"])
    if not given["stream"] and (wrong := [str(goal) for goal in goals if goal.measure in OF_STREAMS]):
        raise click.UsageError(f"--goodput {' '.join(wrong)}: with --no-stream only e2e is known.")
    extra = {"ignore_eos": True} if given["ignore_eos"] else {}
    shape = Shape(
        prompt_tokens=given["prompt_tokens"],
        output_tokens=given["output_tokens"],
        turns=given["turns"],
        system_tokens=given["system_tokens"],
        num_systems=given["system_prompts"],
        cancel_rate=given["cancel_rate"],
    )
    return Plan(
        targets=targets,
        asking=Asking(
            is_streamed=given["stream"],
            timeout_s=given["timeout"] / 1e3,
            leave_s=given["cancel_after"] / 1e3,
            extra=extra | read_extra(given["extra_body"]),
        ),
        shape=shape,
        load=Load(
            concurrency=concurrency,
            max_requests=given["requests"],
            duration_s=None if duration_ms is None else duration_ms / 1e3,
            think_s=given["think"] / 1e3,
        ),
        rate=rate,
        arrival=Arrival(given["arrival"]),
        replay=replay,
        goals=goals,
        rounds=given["rounds"] or (3 if given["compare"] else 1),
        seed=given["seed"] if given["seed"] is not None else secrets.randbelow(MAX_DRAWN_SEED),
        warmup_s=given["warmup"] / 1e3,
        tokens_per_word=given["tokens_per_word"],
    )


def _access(given: dict[str, Any], before: str) -> tuple[str | None, Path | None, Sequence[str]]:
    return given[f"{before}model"], given[f"{before}api_key_file"], given[f"{before}header"]


def _check_targets(given: dict[str, Any]) -> None:
    names = ("compare_model", "compare_api_key_file", "compare_header")
    if not given["compare"] and (found := next((name for name in names if given[name]), None)):
        raise click.UsageError(f"--{found.replace('_', '-')} is of targets of --compare, and there is none.")
    places: list[Place] = [given["url"], *given["compare"]]
    if len({place.url for place in places}) < len(places) or len({place.label for place in places}) < len(places):
        raise click.UsageError("--compare names a target twice; each must be another one.")
    if given["tls_ca"] is not None and not any(place.url.startswith("https://") for place in places):
        raise click.UsageError("--tls-ca is for https://, and no URL is one.")


def _replay(given: dict[str, Any]) -> Replay | None:
    path: Path | None = given["trace"]
    if path is None:
        return None
    if given["turns"] != Span(1, 1) or given["system_tokens"]:
        raise click.UsageError("--trace says itself what is asked: leave --turns and --system-tokens out.")
    try:
        return Replay(read_trace(path, given["requests"]), given["trace_block"], given["trace_speed"])
    except BadTrace as error:
        raise click.UsageError(f"--trace {path}: {error}.") from None
    except OSError as error:
        raise click.UsageError(f"--trace {path}: {error.strerror}.") from None


def num_requests(plan: Plan) -> int | None:
    """What the progress bar goes up to; None where time ends a run."""
    if plan.load.duration_s is not None:
        return None
    return len(plan.replay.entries) if plan.replay is not None else plan.load.max_requests


def told_options(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Those that somebody gave, under the names of their flags."""
    options = {
        name: value for name, value in given.items() if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    for name in SECRET:
        if name in options:
            options[name] = [header.partition(":")[0] for header in options[name]]
    return {name.replace("_", "-"): _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in cast("Iterable[Any]", value)]
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)
