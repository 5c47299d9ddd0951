"""What `paddler batch` prints, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from paddler.batch_cli.client import Batch

MAX_ERRORS = 10
STYLES = {"completed": "green", "failed": "red", "expired": "red", "cancelled": "yellow", "cancelling": "yellow"}


def new_progress() -> Progress:
    """On stderr, so that what is fetched may go to stdout."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def batch_block(batch: Batch, now: float) -> Iterator[RenderableType]:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("batch", batch.id)
    facts.add_row("status", Text(batch.status, style=STYLES.get(batch.status, "")))
    facts.add_row("lines", lines_told(batch))
    facts.add_row("endpoint", batch.endpoint)
    if batch.expires_at is not None and not batch.has_ended:
        facts.add_row("window", f"{max(0, round((batch.expires_at - now) / 60))} min are left")
    for name, file_id in (("output", batch.output_file_id), ("errors", batch.error_file_id)):
        if file_id is not None:
            facts.add_row(name, file_id)
    yield facts
    errors = batch.errors.data if batch.errors is not None else []
    for error in errors[:MAX_ERRORS]:
        where = f"line {error.line}: " if error.line is not None else ""
        yield Text(f"{where}{error.message} ({error.code})", style="red")
    if len(errors) > MAX_ERRORS:
        yield Text(f"and {len(errors) - MAX_ERRORS} more; --json has them", style="red")


def lines_told(batch: Batch) -> str:
    counts = batch.request_counts
    left = counts.total - counts.completed - counts.failed
    return f"{counts.total:,}: {counts.completed:,} done, {counts.failed:,} failed, {max(0, left):,} to do"


def batches_table(batches: list[Batch]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("id", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for name in ("lines", "done", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for batch in batches:
        counts = batch.request_counts
        table.add_row(
            batch.id,
            Text(batch.status, style=STYLES.get(batch.status, "")),
            f"{counts.total:,}",
            f"{counts.completed:,}",
            f"{counts.failed:,}",
        )
    return table
