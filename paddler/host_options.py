"""Names under which services answer while there are no API keys: a flag of the balancer and of `paddler up`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from paddler.settings import option

ALLOWED_HOST = "--allowed-host"

_F = TypeVar("_F", bound=Callable[..., Any])
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"\.?{_LABEL}(?:\.{_LABEL})*")


class HostType(click.ParamType[str, str]):
    """A host name without its port, as the `Host` header has it; with a dot before it, also all names below it."""

    name = "host"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        host = value.lower().removesuffix(".")
        if len(host) > 253 or not _HOST.fullmatch(host):
            self.fail(
                f"{value!r} is no host name, such as llm.example.org; .example.org is it and all names below, "
                "ports do not matter, and addresses need no flag.",
                param,
                ctx,
            )
        return host


HOST = HostType()


def host_options(function: _F) -> _F:
    """Adds `allowed_host`."""
    return option(
        ALLOWED_HOST,
        type=HOST,
        multiple=True,
        help="A name under which services answer while there are no API keys, beside localhost; on addresses that "
        "others reach any name will do until one is given. .example.org is it and all below it; repeatable.",
    )(function)


def host_flags(names: tuple[str, ...]) -> list[str]:
    """The same flags for a child process."""
    return [part for name in names for part in (ALLOWED_HOST, name)]
