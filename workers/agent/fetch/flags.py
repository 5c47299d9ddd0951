"""The flags of an agent that say where models are kept and which tokens open which server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from paddler.settings import option
from workers.agent.fetch.cache import ModelCache, default_root

_F = TypeVar("_F", bound=Callable[..., Any])


class _HostFile(click.ParamType[tuple[str, Path], str]):
    name = "host=file"

    def convert(
        self, value: str | tuple[str, Path], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        host, sign, path = value.partition("=")
        if not sign or not host or not path or "/" in host:
            self.fail(
                f"{value!r}: expected HOST=FILE or HOST:PORT=FILE, such as models.example.com=/run/token", param, ctx
            )
        return host.lower(), Path(path)


_OPTIONS = (
    option(
        "--cache-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where models from URLs are kept; by default $XDG_CACHE_HOME/paddler, else ~/.cache/paddler.",
    ),
    option(
        "--download-token-file",
        "download_tokens",
        type=_HostFile(),
        multiple=True,
        help="HOST=FILE: the bearer token in the file goes with downloads from this host; repeatable.",
    ),
    option(
        "--hf-token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file with the token for Hugging Face; by default HF_TOKEN, else that of `hf auth login`.",
    ),
)
NAMES = ("cache_dir", "download_tokens", "hf_token_file")


def fetch_options(function: _F) -> _F:
    """Adds the arguments `NAMES`."""
    for one in reversed(_OPTIONS):
        function = one(function)
    return function


def model_cache(given: Mapping[str, Any], environ: Mapping[str, str]) -> ModelCache:
    """`given` has the values of `fetch_options`."""
    return ModelCache(
        root=given["cache_dir"] or default_root(environ),
        token_files=dict(given["download_tokens"]),
        hub_token_file=given["hf_token_file"],
    )
