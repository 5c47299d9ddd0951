"""The flags of an agent that fronts another server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from click.core import ParameterSource

from paddler.clock import SystemClock
from paddler.engine import Engine
from paddler.engine_flags import NAMES
from paddler.settings import option
from workers.agent.phases import Report
from workers.agent.upstream.settings import (
    DEFAULT_INTERVAL_MS,
    DEFAULT_TIMEOUT_MS,
    UpstreamSettings,
    host_without_port,
    root_of,
)

_F = TypeVar("_F", bound=Callable[..., Any])

OWN_HOST = ":own:"
"""`--rewrite-host-header` without a value."""
OWN = ("upstream", "upstream_api_key_file", "local_llamacpp_api_key", "upstream_model", "rewrite_host_header")
OTHERS = (*NAMES, "model")
"""Flags of engines that load a model."""


class _Url(click.ParamType[str, str]):
    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return root_of(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class _Host(click.ParamType[str, str]):
    name = "host"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != OWN_HOST and (not value.isascii() or not value.isprintable() or set(value) & set(" /@?#")):
            self.fail(f"{value!r} is no name of a host, such as models.example.org.", param, ctx)
        return value


def upstream_options(function: _F) -> _F:
    """Adds the names in `OWN`, `upstream_timeout_ms` and `monitoring_ms`."""
    for one in reversed(
        (
            option("--upstream", type=_Url(), help="The server behind --engine openai, as http://127.0.0.1:8080."),
            option(
                "--upstream-api-key-file",
                type=click.Path(path_type=Path),
                help="A file with the key that the server wants; it is read again when the server refuses the key.",
            ),
            option(
                "--local-llamacpp-api-key",
                "--llamacpp-api-key",
                help="The key itself; anybody on this machine can read it in the list of processes.",
            ),
            option("--upstream-model", help="Which of the server's models; by default the only one."),
            option(
                "--rewrite-host-header",
                type=_Host(),
                is_flag=False,
                flag_value=OWN_HOST,
                help="The Host header to send, for a server behind a virtual host; without a value the URL's host "
                "without its port.",
            ),
            option(
                "--upstream-timeout",
                "upstream_timeout_ms",
                type=click.IntRange(min=1),
                default=DEFAULT_TIMEOUT_MS,
                help="How long the server may say nothing to a request, ms.",
            ),
            option(
                "--monitoring-interval",
                "monitoring_ms",
                type=click.IntRange(min=100),
                default=DEFAULT_INTERVAL_MS,
                help="Between two snapshots of what the agent measures, and two looks at another server, ms.",
            ),
        )
    ):
        function = one(function)
    return function


def check_flags(context: click.Context, engine: str, slots: int | None, given: Mapping[str, Any]) -> int:
    """How many slots are asked for, 0 if the server is to say it. Raises `UsageError` for a flag that means nothing
    to this engine, and for one that it needs."""
    if engine == "openai":
        if given["upstream"] is None:
            raise click.UsageError("--upstream is required with --engine openai: the URL of a server.")
        if given["upstream_api_key_file"] is not None and given["local_llamacpp_api_key"] is not None:
            raise click.UsageError(
                "--upstream-api-key-file and --local-llamacpp-api-key both give the key: leave one out."
            )
        _refuse(context, OTHERS, "is for engines that load a model; the server behind --engine openai has its own")
    else:
        _refuse(context, (*OWN, "upstream_timeout_ms"), "goes with --engine openai")
        if slots is None:
            raise click.UsageError(
                f"--slots is required with --engine {engine}: how many requests it generates at once."
            )
    return slots or 0


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    flags = {one.name: one.opts[0] for one in context.command.params}
    for name in names:
        # A variable may be there for other agents of this machine.
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{flags[name]} {why}.")


def upstream_settings(
    given: Mapping[str, Any], *, slots: int | None, model_name: str | None, context_size: int, monitoring_ms: int
) -> UpstreamSettings:
    host: str | None = given["rewrite_host_header"]
    return UpstreamSettings(
        url=given["upstream"],
        key_file=given["upstream_api_key_file"],
        key=given["local_llamacpp_api_key"],
        model=given["upstream_model"],
        model_name=model_name,
        slots=slots,
        host=host_without_port(given["upstream"]) if host == OWN_HOST else host,
        context_size=context_size,
        timeout_s=given["upstream_timeout_ms"] / 1000,
        interval_s=monitoring_ms / 1000,
    )


def build_upstream(settings: UpstreamSettings, _report: Report, _is_suspect: bool) -> Engine:
    from workers.agent.upstream.engine import UpstreamEngine

    return UpstreamEngine(settings, SystemClock())
