"""Which pages in browsers may use the services: flags of the balancer and of `paddler up`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import rich_click as click

from paddler.settings import option

MANAGEMENT_CORS, INFERENCE_CORS = "--management-cors-allowed-host", "--inference-cors-allowed-host"

_F = TypeVar("_F", bound=Callable[..., Any])


class OriginType(click.ParamType[str, str]):
    """An origin as browsers send it: scheme, host, and the port where it is not the scheme's own."""

    name = "origin"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parts = urlsplit(value)
            is_origin = (
                parts.scheme in ("http", "https") and value.lower() == f"{parts.scheme}://{parts.netloc}".lower()
            )
            is_origin = is_origin and bool(parts.hostname) and "@" not in parts.netloc and (parts.port or 0) >= 0
        except ValueError:
            is_origin = False
        if not is_origin or not value.isascii():
            self.fail(f"{value!r} is no origin, such as https://example.org or http://127.0.0.1:3000.", param, ctx)
        return value.lower()


ORIGIN = OriginType()


def cors_options(function: _F) -> _F:
    """Adds `management_cors_allowed_host` and `inference_cors_allowed_host`."""
    function = option(
        INFERENCE_CORS,
        type=ORIGIN,
        multiple=True,
        help="Let pages of this origin use the inference service and that of --compat-openai-addr; repeatable, exact.",
    )(function)
    return option(
        MANAGEMENT_CORS,
        type=ORIGIN,
        multiple=True,
        help="Let pages of this origin (https://example.org) use the management service; repeatable, exact.",
    )(function)


def cors_flags(management: tuple[str, ...], inference: tuple[str, ...]) -> list[str]:
    """The same flags for a child process."""
    each = [(MANAGEMENT_CORS, origin) for origin in management] + [(INFERENCE_CORS, origin) for origin in inference]
    return [part for pair in each for part in pair]
