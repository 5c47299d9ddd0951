"""`/api/v1/usage`: what tenants have used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.body import AnyRequest
from api.management.key_objects import UsageAnswer
from api.management.key_operations import USAGE
from api.management.keys import json_answer, told_as_unavailable
from api.openai.query import read_query
from paddler.batches.quota import read_holdings
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.store.client import Store
from paddler.tenants.accounting import account_now
from paddler.tenants.keys import ApiKeys
from paddler.tenants.records import NAME_PATTERN, NAME_RULE
from paddler.tenants.usage import GROUPS, MAX_DAYS, Group, grouped, read_usage, today

DEFAULT_DAYS = 30
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def usage_routes(store: Store, keys: ApiKeys, clock: Clock) -> list[HTTPRouteHandler]:
    @get("/api/v1/usage", operation=USAGE)
    async def get_usage(request: AnyRequest) -> ASGIResponse:
        """What has ended is in it at once; what runs is not."""
        query = read_query(request, ("from", "to", "tenant", "group_by"))
        last = read_day(query, "to", today(clock.wall()))
        first = read_day(query, "from", last - min(timedelta(days=DEFAULT_DAYS), last - date.min))
        if not 0 <= (last - first).days < MAX_DAYS:
            raise InvalidField(f"`from` must not be behind `to`, nor {MAX_DAYS} days before it.", param="from")
        tenant = query.get("tenant")
        if tenant is not None and not re.fullmatch(NAME_PATTERN, tenant):
            raise InvalidField(f"`tenant` must have {NAME_RULE}.", param="tenant")
        by = read_groups(query)
        await account_now(store)
        async with told_as_unavailable():
            rows = await read_usage(store, keys, first, last, tenant=tenant)
            held = await read_holdings(store, tenant=tenant)
        return json_answer(UsageAnswer(first.isoformat(), last.isoformat(), list(by), grouped(rows, by), held))

    return [get_usage]


def read_day(query: Mapping[str, str], name: str, default: date) -> date:
    text = query.get(name)
    if text is None:
        return default
    try:
        if not _DAY.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidField(f"`{name}` must be a day, such as 2026-01-31.", param=name) from None


def read_groups(query: Mapping[str, str]) -> tuple[Group, ...]:
    text = query.get("group_by")
    if text is None:
        return ("tenant", "key", "model")
    asked = text.split(",")
    if not set(asked) <= set(GROUPS):
        raise InvalidField(f"`group_by` must be some of {', '.join(GROUPS)}, with commas between.", param="group_by")
    return tuple(group for group in GROUPS if group in asked)
