"""`paddler bench`: the composition root of the load generator."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
import uvloop
from rich.console import Console

from paddler import __version__
from paddler.bench.arrivals import Arrival
from paddler.bench.options import PlaceType, SpanType
from paddler.bench.page import write_page
from paddler.bench.plan import Bench, Plan
from paddler.bench.preflight import CannotBench
from paddler.bench.progress import Bar
from paddler.bench.reading import num_requests, read_plan, told_options
from paddler.bench.report import Report, compare
from paddler.bench.shown import report_blocks
from paddler.clock import SystemClock
from paddler.cores import num_usable_cores
from paddler.settings import option

_INPUT = click.Path(dir_okay=False, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)
_COUNT = click.IntRange(min=1)
_MS = click.IntRange(min=1)
MAX_FILES = 65_536


@click.command(name="bench")
@option("--url", type=PlaceType(), default="http://127.0.0.1:8061", help="Where to ask, with or without /v1.")
@option("--model", help="Instead of the first that the target lists.")
@option("--api-key-file", type=_INPUT, help="A file with an API key, alone.")
@option("--header", multiple=True, metavar="NAME: VALUE", help="Sent with each request; may be given several times.")
@option("--tls-ca", type=_INPUT, help="Authorities (PEM) to trust for https:// instead of the system's.")
@option("--compare", type=PlaceType(), multiple=True, help="Another target, asked the same in turn; may be repeated.")
@option("--compare-model", help="The model of those.")
@option("--compare-api-key-file", type=_INPUT, help="Their API key: that of --url is not sent there.")
@option("--compare-header", multiple=True, metavar="NAME: VALUE", help="Their headers, instead of --header.")
@option("--rounds", type=_COUNT, help="How often everything is measured, in turn: 3 with --compare, else once.")
@option("--rate", type=click.FloatRange(min=0, min_open=True), help="Open loop: requests/s, answered or not.")
@option(
    "--arrival",
    type=click.Choice([one.value for one in Arrival]),
    default=Arrival.POISSON.value,
    help="How those are spaced.",
)
@option("--concurrency", type=_COUNT, help="Closed loop: conversations kept going at once; 4 where no load is named.")
@option("--trace", type=_INPUT, help="Mooncake's JSON lines, replayed at their times, or with --concurrency in order.")
@option("--trace-speed", type=click.FloatRange(min=0, min_open=True), default=1.0, help="2: twice as fast.")
@option("--trace-block", type=_COUNT, default=512, help="Tokens that one of its hash_ids stands for.")
@option("--requests", type=_COUNT, help="End after so many requests.")
@option(
    "--duration", type=_MS, help="End after so many milliseconds; 30000 where neither this nor --requests is given."
)
@option("--warmup", type=click.IntRange(min=0), default=0, help="Milliseconds at the start that are not counted.")
@option("--prompt-tokens", type=SpanType(), default="128", help="Of each user's message: N or LOW:HIGH.")
@option("--output-tokens", type=SpanType(), default="64", help="`max_tokens` of each answer: N or LOW:HIGH.")
@option("--turns", type=SpanType(), default="1", help="Of each conversation: N or LOW:HIGH.")
@option("--think", type=click.IntRange(min=0), default=0, help="Milliseconds between an answer and the next turn.")
@option("--system-tokens", type=click.IntRange(min=0), default=0, help="Of the system prompt; 0 is none.")
@option("--system-prompts", type=_COUNT, default=1, help="How many of them all conversations share.")
@option("--cancel-rate", type=click.FloatRange(0, 1), default=0.0, help="The share of requests whose client goes away.")
@option("--cancel-after", type=_MS, default=1000, help="Milliseconds after sending at which it does.")
@option("--timeout", type=_MS, default=600_000, help="Milliseconds for a whole answer.")
@option("--stream/--no-stream", default=True, help="Without, there is only the time to the end.")
@option("--ignore-eos", is_flag=True, help="Answers as long as --output-tokens says, from servers that know the field.")
@option("--extra-body", metavar="JSON", help="Fields of each body; null takes one away.")
@option("--tokens-per-word", type=click.FloatRange(0.1, 20), help="Instead of asking the target twice for it.")
@option("--goodput", multiple=True, metavar="MEASURE:MS", help="What a good answer keeps: ttft, itl, gap, e2e.")
@option("--seed", type=int, help="The same seed, the same requests; drawn, and told, where none is given.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@option("--output", type=_OUTPUT, help="Write that JSON to this file.")
@option("--samples", type=_OUTPUT, help="Write each request as a line of JSON to this file.")
@option("--html", type=_OUTPUT, help="Write a page with plots to this file.")
@click.argument("more_goals", nargs=-1, metavar="[MEASURE:MS]...")  # pyright: ignore[reportUnknownMemberType]  # as settings.option
@click.pass_context
def command(ctx: click.Context, *, more_goals: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Put load on a server that speaks OpenAI's chat completions, and say how it bore it.

    Latencies count from when a request was due, whatever held it up. Ctrl-C prints what there is until then.
    """
    if more_goals and not given["goodput"]:
        raise click.UsageError(f"{more_goals[0]!r} is behind no flag; goals of --goodput may stand there.")
    given["goodput"] = (*given["goodput"], *more_goals)
    for flag in ("output", "samples", "html"):
        _check_writable(f"--{flag}", given[flag])
    clock = SystemClock()
    begun_at = datetime.fromtimestamp(clock.wall(), UTC).isoformat(timespec="seconds")
    plan = read_plan(given, clock.wall())
    _raise_file_limit()
    bench = uvloop.run(_measure(plan, clock, num_requests(plan)))
    report = Report(
        paddler=__version__,
        begun_at=begun_at,
        host=f"{platform.machine()}, {num_usable_cores()} cores, {platform.system()} {platform.release()}",
        seed=plan.seed,
        options=told_options(ctx, given),
        tokens_per_word=bench.tokens_per_word,
        is_tokens_measured=bench.is_tokens_measured,
        targets=[target for target in bench.measured if target.rounds],
        is_stopped=bench.is_stopped,
    )
    report.comparison = compare(report.targets) if len(report.targets) == len(plan.targets) else []
    _write(report, bench, given)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 120)
        for block in report_blocks(report):
            console.print(block)
    if bench.is_stopped:
        sys.exit(130)
    sys.exit(0 if all(one.num_ok for target in report.targets for one in target.rounds) else 1)


async def _measure(plan: Plan, clock: SystemClock, num_known: int | None) -> Bench:
    """Raises `ClickException`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, loop, stop)
    with Bar(plan.load, num_known, clock) as bar:
        bench = Bench(plan, clock, bar.on_run)
        gc.freeze()  # what was imported is no garbage, and a look at it takes longer than a chunk
        running = asyncio.create_task(bench.run(stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set() and not any(target.rounds for target in bench.measured) and not bench.is_running:
            running.cancel()  # the target was still asked what it is
            await asyncio.gather(running, return_exceptions=True)
            raise click.ClickException("Stopped before anything was measured.")
        stopping.cancel()
        try:
            await running
        except CannotBench as error:
            raise click.ClickException(f"{error}.") from None
    return bench


def _stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """A second signal ends it at once."""
    stop.set()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


def _raise_file_limit() -> None:
    """A connection is a file: the soft limit, mostly 1024, would be met as errors of the server's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_writable(flag: str, path: Path | None) -> None:
    """Before minutes of load. Raises `UsageError`."""
    if path is not None and not path.exists():
        folder = path.resolve().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise click.UsageError(f"{flag} {path}: {folder} is not there, or not yours.")


def _write(report: Report, bench: Bench, given: dict[str, Any]) -> None:
    """Raises `ClickException`."""
    if given["output"] is not None:
        _save("--output", given["output"], msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if given["samples"] is not None:
        _save("--samples", given["samples"], b"".join(bench.sample_lines()))
    if given["html"] is not None:
        _save("--html", given["html"], write_page(report, bench.series).encode())


def _save(flag: str, path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise click.ClickException(f"{flag} {path}: {error.strerror}.") from None
