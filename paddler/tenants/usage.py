"""What tenants have used: by day, tenant, key and model, or any of these together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from paddler.store.client import Store
from paddler.store.tenant_keys import TenantKeys, tenants_key
from paddler.tenants.keys import ApiKeys

EPOCH = date(1970, 1, 1)
MAX_DAYS = 366
PAGE = 500

Group = Literal["day", "tenant", "key", "model"]
GROUPS: tuple[Group, ...] = ("day", "tenant", "key", "model")


class UsageRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`date` is a day in UTC; what rows are not grouped by is None. `cached_tokens` are a part of `prompt_tokens`;
    `model` is the one that an agent served, empty for what ended before any had it."""

    date: str | None = None
    tenant: str | None = None
    key: str | None = None
    key_name: str | None = None
    model: str | None = None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


_FIELDS = {"requests": "requests", "prompt": "prompt_tokens", "cached": "cached_tokens", "output": "output_tokens"}
_COLUMNS = {"day": ("date",), "tenant": ("tenant",), "key": ("key", "key_name"), "model": ("model",)}


def today(now_s: float) -> date:
    return datetime.fromtimestamp(now_s, UTC).date()


async def read_usage(
    store: Store, keys: ApiKeys, first: date, last: date, *, tenant: str | None = None
) -> list[UsageRow]:
    """By day, tenant, key and model, of all days from `first` to `last`, both included; at most `MAX_DAYS`. Raises what
    Redis raises."""
    names = {key.id: key.name for key in await keys.list()}
    tenants = [tenant] if tenant is not None else sorted(await _tenants(store))
    asked = [(one, day) for one in tenants for day in range((first - EPOCH).days, (last - EPOCH).days + 1)]
    rows: list[UsageRow] = []
    for start in range(0, len(asked), PAGE):
        page = asked[start : start + PAGE]
        pipe: Any = store.redis.pipeline(transaction=False)
        for one, day in page:
            pipe.hgetall(TenantKeys(store.prefix, one).usage(day))
        for (one, day), fields in zip(page, await pipe.execute(), strict=True):
            rows += _rows(one, EPOCH + timedelta(days=day), fields, names)
    return sorted(rows, key=_order)


def grouped(rows: Iterable[UsageRow], by: Sequence[Group]) -> list[UsageRow]:
    """Rows that are alike in these together."""
    dropped: dict[str, Any] = {column: None for group in GROUPS if group not in by for column in _COLUMNS[group]}
    sums: dict[tuple[object, ...], UsageRow] = {}
    for row in rows:
        row = replace(row, **dropped)
        place = (row.date, row.tenant, row.key, row.model)
        known = sums.get(place)
        sums[place] = row if known is None else _sum(known, row)
    return sorted(sums.values(), key=_order)


def _sum(one: UsageRow, other: UsageRow) -> UsageRow:
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in _FIELDS.values()})


def _order(row: UsageRow) -> tuple[str, str, str, str]:
    return (row.date or "", row.tenant or "", row.key or "", row.model or "")


async def _tenants(store: Store) -> set[str]:
    found: set[bytes] = await store.redis.smembers(tenants_key(store.prefix))
    return {one.decode() for one in found}


def _rows(tenant: str, day: date, fields: dict[bytes, bytes], names: dict[str, str]) -> list[UsageRow]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    for name, number in fields.items():
        key, what, model = name.decode().split("|", 2)
        found.setdefault((key, model), dict.fromkeys(_FIELDS.values(), 0))[_FIELDS[what]] = int(number)
    return [
        UsageRow(date=day.isoformat(), tenant=tenant, key=key, key_name=names.get(key, ""), model=model, **numbers)
        for (key, model), numbers in found.items()
    ]
