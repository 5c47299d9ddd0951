"""The flags of keys: who has one, and what it may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import rich_click as click
from msgspec.structs import replace

from paddler.settings import option
from paddler.store.keys import CLASSES
from paddler.tenants.records import MAX_LIMIT, MAX_WEIGHT, MIN_WEIGHT, Limits

_F = TypeVar("_F", bound=Callable[..., Any])

_LIMIT = click.IntRange(min=0, max=MAX_LIMIT)
_FLAGS = (
    ("--requests-per-minute", _LIMIT, "Requests it may send in a minute; 0 is no limit."),
    ("--tokens-per-minute", _LIMIT, "Tokens, of prompts and output, that it may use in a minute; 0 is no limit."),
    ("--max-in-flight", _LIMIT, "Requests of it that may wait or run at once; 0 is no limit."),
    ("--daily-tokens", _LIMIT, "Tokens that it may use in a day (UTC); 0 is no limit."),
    ("--max-file-bytes", _LIMIT, "Bytes that files of its tenant may have together; 0 is the balancer's setting."),
    ("--max-open-batches", _LIMIT, "Batches of its tenant that may be under way; 0 is the balancer's setting."),
    ("--max-batch-lines", _LIMIT, "Lines of these batches together; 0 is the balancer's setting."),
    ("--class", click.Choice(CLASSES), "The class of its requests that name none."),
    ("--max-class", click.Choice(CLASSES), "The highest class that its requests get, whatever they ask for."),
    ("--weight", click.FloatRange(MIN_WEIGHT, MAX_WEIGHT), "2 is twice the share of 1 while others wait."),
)
_NAMES = {"class": "default_class"}


def limit_options(function: _F) -> _F:
    """Adds one argument a limit, None for what is not said; `changed_limits` reads them together."""
    for flag, kind, words in reversed(_FLAGS):
        name = flag.lstrip("-").replace("-", "_")
        function = option(flag, _NAMES.get(name, name), type=kind, default=None, help=words, show_default=False)(
            function
        )
    return function


def changed_limits(limits: Limits, given: Mapping[str, Any]) -> Limits:
    """Limits with what was said on the command line in place of what they are."""
    told = {name: value for name, value in given.items() if value is not None}
    return replace(limits, **{name: None if value == 0 else value for name, value in told.items()})


class Time(click.ParamType[int, int | str]):
    """A day or a time, in UTC unless it says another zone; ms since the epoch."""

    name = "time"

    def convert(self, value: int | str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day or time, such as 2027-01-31 or 2027-01-31T12:00Z.", param, ctx)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
