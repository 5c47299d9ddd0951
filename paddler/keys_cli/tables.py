"""What `paddler keys` and `paddler usage` print, within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from rich.table import Table
from rich.text import Text

from paddler.batches.quota import Holding
from paddler.tenants.records import ApiKey, Limits
from paddler.tenants.usage import Group, UsageRow

NO_KEYS = "There are no API keys: everybody on this machine may use the fleet. Make one: paddler keys create NAME"
NO_USAGE = "Nothing was used in these days with an API key."

_WORDS = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "max_in_flight": "in flight",
    "daily_tokens": "tokens/day",
    "max_file_bytes": "bytes of files",
    "max_open_batches": "open batches",
    "max_batch_lines": "lines in batches",
}


def keys_table(keys: Sequence[ApiKey], now_ms: float) -> Table:
    table = _table()
    table.add_column("id", no_wrap=True)
    table.add_column("name", no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column("tenant", no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column("scopes")
    table.add_column("state", no_wrap=True)
    table.add_column("limits")
    for key in keys:
        state = key.state(now_ms)
        told = Text(state, style="" if state == "active" else "red")
        table.add_row(key.id, key.name, key.tenant, ", ".join(key.scopes), told, limits_text(key.limits))
    return table


def key_block(key: ApiKey, now_ms: float) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    rows = {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": ", ".join(key.scopes),
        "state": key.state(now_ms),
        "limits": limits_text(key.limits) or "none",
        "class": f"{key.limits.default_class}, at most {key.limits.max_class}",
        "weight": f"{key.limits.weight:g}",
        "created": _time(key.created_ms),
        "rotated": _time(key.rotated_ms),
        "expires": _time(key.expires_ms),
        "revoked": _time(key.revoked_ms),
    }
    for name, value in rows.items():
        facts.add_row(name, value)
    return facts


def limits_text(limits: Limits) -> str:
    told = msgspec.structs.asdict(limits)
    return ", ".join(f"{told[name]:,} {words}" for name, words in _WORDS.items() if told[name] is not None)


def usage_table(rows: Sequence[UsageRow], by: Sequence[Group]) -> Table:
    table = _table()
    for group in by:
        table.add_column(group, no_wrap=True, overflow="ellipsis", max_width=20)
    for name in ("requests", "prompt", "cached", "output"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        places = {"day": row.date, "tenant": row.tenant, "key": row.key_name or row.key, "model": row.model or "-"}
        numbers = (row.requests, row.prompt_tokens, row.cached_tokens, row.output_tokens)
        table.add_row(*(places[group] or "-" for group in by), *(f"{number:,}" for number in numbers))
    return table


def holdings_table(holdings: Sequence[Holding]) -> Table:
    """What tenants hold now, beside what they have used."""
    table = _table()
    table.add_column("tenant", no_wrap=True, overflow="ellipsis", max_width=20)
    for name in ("files", "bytes", "open batches", "lines"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in holdings:
        numbers = (one.files, one.file_bytes, one.open_batches, one.batch_lines)
        table.add_row(one.tenant, *(f"{number:,}" for number in numbers))
    return table


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")


def _time(ms: int | None) -> str:
    return "-" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
