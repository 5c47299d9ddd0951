"""The flags of an agent that say where states of its KV cache are kept and found; `paddler up` passes most on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import rich_click as click
from click.core import ParameterSource
from msgspec import Struct

from paddler.engine_flags import SIZE
from paddler.redis_access import check_access
from paddler.settings import ADDRESS, Address, option
from paddler.store.location import Location, locate

_F = TypeVar("_F", bound=Callable[..., Any])

DEFAULT_DISK_SIZE = "10GiB"
DEFAULT_GRACE_MS = 2000
DEFAULT_RAM = 256 * 1024 * 1024
"""Bytes of host memory where a tier behind it is given and it is not: everything goes that way."""
MIN_KEY_SIZE = 16

PLACES = ("kv_disk", "kv_url", "kv_addr")
"""Each of these is a tier."""
BESIDE: Mapping[str, tuple[str, ...]] = {
    "kv_disk_size": ("kv_disk",),
    "kv_advertise": ("kv_addr",),
    "kv_key_file": PLACES,
    "kv_grace": PLACES,
}
"""Flags that mean nothing without one of others."""
NAMES = (*PLACES, *BESIDE)


class KvSettings(Struct, frozen=True, kw_only=True):
    """Tiers behind host memory: a directory and how many bytes may be there, a Redis, an address where others come for
    what this agent has (`advertise`: as they are told it; None: found out). `key` is the content of the operator's key
    file. For `grace_ms` a leaving agent writes states before it hands over."""

    disk: Path | None = None
    disk_bytes: int = 0
    url: str | None = None
    addr: Address | None = None
    advertise: str | None = None
    key: bytes | None = None
    grace_ms: int = DEFAULT_GRACE_MS


class _KvUrl(click.ParamType[str, str]):
    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            if locate(value).service is not None:
                raise ValueError(
                    "expected one server, such as redis://host:port, not Sentinels: nothing is lost with it"
                )
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        return value


class _Advertised(click.ParamType[str, str]):
    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parts = urlsplit(value)
            is_good = parts.scheme == "http" and bool(parts.hostname and parts.port) and parts.path in ("", "/")
        except ValueError:
            is_good = False
        if not is_good:
            self.fail(f"{value!r} is no http://host:port; what is sent there is encrypted already.", param, ctx)
        return value.rstrip("/")


_OPTIONS: Mapping[str, Callable[[Any], Any]] = {
    "kv_disk": option(
        "--kv-disk",
        type=click.Path(file_okay=False, path_type=Path),
        help="A directory for states of the KV cache, which outlive the agent there; agents of a host may share it.",
    ),
    "kv_disk_size": option("--kv-disk-size", type=SIZE, default=DEFAULT_DISK_SIZE, help="How much may be there."),
    "kv_url": option(
        "--kv-url",
        type=_KvUrl(),
        help="A Redis or Valkey for states that the fleet shares, with maxmemory and allkeys-lru; never the queue's.",
    ),
    "kv_addr": option(
        "--kv-addr",
        type=ADDRESS,
        help="Give states to other agents at this address, and fetch theirs; port 0 is any free one.",
    ),
    "kv_advertise": option(
        "--kv-advertise",
        type=_Advertised(),
        help="How other agents reach that address, as http://host:port; by default found out.",
    ),
    "kv_key_file": option(
        "--kv-key-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Encrypt states with the contents of this file, the same for all agents; by default with a secret of the "
        "fleet, which is in the queue's Redis.",
    ),
    "kv_grace": option(
        "--kv-grace",
        type=click.IntRange(min=0),
        default=DEFAULT_GRACE_MS,
        help="How long a leaving agent writes states of what it hands over, and then gives them away, ms.",
    ),
}


def kv_options(function: _F) -> _F:
    """Adds the arguments `NAMES`."""
    for one in reversed(list(_OPTIONS.values())):
        function = one(function)
    return function


def up_kv_options(function: _F) -> _F:
    """Adds all of them but `kv_advertise`."""
    for name, one in reversed(list(_OPTIONS.items())):
        function = function if name == "kv_advertise" else one(function)
    return function


def kv_settings(
    context: click.Context, given: Mapping[str, Any], redis_url: str | None, kv_ram: int | None, now_s: float
) -> KvSettings | None:
    """None: no tier is given. Raises `UsageError` for what does not go together or cannot be used."""
    _check_beside(context, given)
    tiers = [name for name in PLACES if given[name] is not None]
    if not tiers:
        return None
    if kv_ram == 0:
        raise click.UsageError(
            f"--kv-ram 0 and {flag(tiers[0])}: states come and go through host memory; leave --kv-ram out for 256 MiB."
        )
    if given["kv_disk"] is not None and given["kv_disk_size"] <= 0:
        raise click.UsageError("--kv-disk-size 0 keeps nothing; leave --kv-disk out instead.")
    url: str | None = given["kv_url"]
    if url is not None:
        check_kv_url(url, redis_url, now_s)
    key_file: Path | None = given["kv_key_file"]
    return KvSettings(
        disk=given["kv_disk"],
        disk_bytes=given["kv_disk_size"],
        url=url,
        addr=given["kv_addr"],
        advertise=given["kv_advertise"],
        key=None if key_file is None else read_key(key_file),
        grace_ms=given["kv_grace"],
    )


def check_kv_url(url: str, redis_url: str | None, now_s: float) -> None:
    """Raises `UsageError` for the queue's own server, and for files that cannot be used."""
    if redis_url is not None and _is_same(locate(url), locate(redis_url)):
        raise click.UsageError(
            "--kv-url is the server of --redis-url: states would push the queue out of its memory. Give them a Redis "
            "or Valkey of their own, with maxmemory and maxmemory-policy allkeys-lru."
        )
    try:
        check_access(locate(url), now_s, names=("password_file", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
    except ValueError as error:
        raise click.UsageError(f"--kv-url: {error}.") from None


def read_key(path: Path) -> bytes:
    """Raises `UsageError`."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"--kv-key-file {path}: {error.strerror}.") from None
    if len(key) < MIN_KEY_SIZE:
        raise click.UsageError(
            f"--kv-key-file {path}: {len(key)} bytes are no key; make one with: head -c 32 /dev/urandom > {path}."
        )
    return key


def refuse_kv_flags(context: click.Context, engine: str) -> None:
    """For engines without a KV cache of ours. Raises `UsageError`."""
    if wrong := next((name for name in NAMES if _is_told(context, name)), None):
        raise click.UsageError(f"{flag(wrong)} is about the KV cache of an engine of ours: not with --engine {engine}.")


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_beside(context: click.Context, given: Mapping[str, Any]) -> None:
    for name, others in BESIDE.items():
        if _is_told(context, name) and all(given[other] is None for other in others):
            raise click.UsageError(f"{flag(name)} goes with {' or '.join(map(flag, others))}.")


def _is_told(context: click.Context, name: str) -> bool:
    # A variable may be there for other agents of this machine.
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _is_same(one: Location, other: Location) -> bool:
    if one.path is not None or other.path is not None:
        return one.path == other.path
    return other.service is None and _hosts(one) == _hosts(other)


def _hosts(location: Location) -> set[tuple[str, int]]:
    loopback = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}
    return {(loopback.get(host.lower(), host.lower()), port) for host, port in location.hosts}
