"""How every process of Paddler takes its settings: a flag, else the variable `PADDLER_<FLAG>`, else the default.

A composition root (the click command of a process) is the one reader of the environment: it declares its flags
with `option`, and everything below it is given plain values. Durations on flags are whole milliseconds.

    @click.command()
    @option("--slots", type=int, default=4, help="...")
    @redis_options
    @pool_option
    @log_options
    def command(*, slots: int, redis_url: str, redis_prefix: str, pool: str, log_level: str, log_format: str) -> None:
        logs.configure("agent", log_level, log_format)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import rich_click as click
from msgspec import Struct

from paddler.aws_metadata import DEFAULT_ENDPOINT, LOCAL_IPV4, local_ipv4
from paddler.clock import SystemClock
from paddler.redis_access import check_access
from paddler.store.location import locate, with_access

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
DEFAULT_REDIS_PREFIX = "paddler"
DEFAULT_POOL = "default"
ENV_PREFIX = "PADDLER_"
AWS_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_AWS_ENDPOINT = "paddler.aws-metadata-endpoint"

LOG_LEVELS = ("error", "warning", "info", "debug")
LOG_FORMATS = ("auto", "console", "json")

_ACCESS = ("username", "password_file", "tls_ca", "tls_cert", "tls_key")
_ACCESS_BEFORE = "paddler.redis_access"
_LATER: dict[str, Any] = {"envvar": None, "help": "As before the subcommand."}
_F = TypeVar("_F", bound=Callable[..., Any])
_POOL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_REDIS_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")


class Address(Struct, frozen=True):
    """Where a service listens. Port 0 asks the system for a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`, an IPv6 host in brackets. Raises `ValueError` saying what is wrong."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"{text!r} is not host:port, such as 127.0.0.1:8061")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: put an IPv6 host in brackets, such as [::1]:8061")
        if not host:
            raise ValueError(f"{text!r} names no host")
        if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
            raise ValueError(f"{text!r}: {port!r} is not a port between 0 and 65535")
        return cls(host, int(port))

    @property
    def url(self) -> str:
        """`http://` and the address; a wildcard host becomes the loopback address, so that it can be called."""
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return f"http://{Address(reachable.get(self.host, self.host), self.port)}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _AddressType(click.ParamType[Address, str | Address]):
    name = "host:port"

    def convert(self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            if value == LOCAL_IPV4 or value.startswith(f"{LOCAL_IPV4}:"):
                return _own_address(value, param, ctx)
            return Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _own_address(text: str, param: click.Parameter | None, ctx: click.Context | None) -> Address:
    """What the metadata service says, with the port that follows or else that of the flag's default."""
    port = text.removeprefix(LOCAL_IPV4).removeprefix(":")
    default = param.default if param is not None else None
    if not port and isinstance(default, str):
        port = default.rpartition(":")[2]
    if not port:
        raise ValueError(f"{text!r} has no port, and this flag no default: such as {LOCAL_IPV4}:8061")
    Address.parse(f"0.0.0.0:{port}")  # a wrong port need not be asked for
    endpoint: str = DEFAULT_ENDPOINT if ctx is None else ctx.meta.get(_AWS_ENDPOINT, DEFAULT_ENDPOINT)
    return Address(local_ipv4(endpoint), int(port))


class _Matching(click.ParamType[str, str]):
    """Text that matches a pattern as a whole; `rule` says in words what is allowed."""

    def __init__(self, name: str, pattern: re.Pattern[str], rule: str) -> None:
        self.name = name
        self._pattern = pattern
        self._rule = rule

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not self._pattern.fullmatch(value):
            self.fail(f"{value!r}: {self._rule}.", param, ctx)
        return value


ADDRESS = _AddressType()
POOL = _Matching("name", _POOL, "lower-case letters, digits and dashes, at most 63, no dash first")
REDIS_PREFIX = _Matching("prefix", _REDIS_PREFIX, "letters, digits and any of _.:- , at most 63 (no braces or spaces)")


class _RedisUrlType(click.ParamType[str, str]):
    """A URL that `paddler.store.location` reads; a wrong one is not repeated, as there may be a password in it."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            locate(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        return value


REDIS_URL = _RedisUrlType()


def env_name(flag: str) -> str:
    """The variable that stands for a flag: `--redis-url` is `PADDLER_REDIS_URL`."""
    return ENV_PREFIX + flag.split("/")[0].lstrip("-").replace("-", "_").upper()


def option(*flags: str, **attributes: Any) -> Callable[[_F], _F]:
    """A click option that also reads its `PADDLER_*` variable; help shows the variable and the default."""
    name = next(flag for flag in flags if flag.startswith("--"))
    attributes.setdefault("envvar", env_name(name))
    attributes.setdefault("show_envvar", True)
    attributes.setdefault("show_default", True)
    return click.option(*flags, **attributes)  # pyright: ignore[reportUnknownMemberType]  # ParamType's parameter is left open


def _all_of(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        # Click lists options in the order of decorators read from the top, so the last one is applied first.
        for one in reversed(options):
            function = one(function)
        return function

    return decorate


_FILE = click.Path(dir_okay=False, path_type=Path)


def _put_into_url(function: _F) -> _F:
    """Below the options of access: calls the command with one URL that says it all."""

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        access = taken_access(given)
        current_context().meta[_ACCESS_BEFORE] = access
        url: str | None = given["redis_url"]
        if url is None:
            if wrong := next((name for name, value in access.items() if value is not None), None):
                raise click.UsageError(f"--redis-{wrong.replace('_', '-')} needs --redis-url.")
            return function(*args, **given)
        given["redis_url"] = url_with_access(url, access)
        return function(*args, **given)

    return cast("_F", command)


def taken_access(given: dict[str, Any]) -> dict[str, Any]:
    """Takes the arguments of the options of access out of those of a command."""
    return {name: given.pop(f"redis_{name}") for name in _ACCESS}


def current_context() -> click.Context:
    """Of the command that runs."""
    context = click.get_current_context()
    assert context is not None
    return context


def access_before() -> dict[str, Any]:
    """What the group of a subcommand was given of them."""
    return current_context().meta.get(_ACCESS_BEFORE, {})


def url_with_access(url: str, access: dict[str, Any]) -> str:
    """Raises `UsageError`."""
    try:
        url = with_access(url, **access)
        check_access(locate(url), SystemClock().wall())
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    return url


_ACCESS_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--redis-username", {"help": "The ACL user of Redis to be; its default user when not given."}),
    (
        "--redis-password-file",
        {"type": _FILE, "help": "A file with the password, read anew for each connection."},
    ),
    (
        "--redis-tls-ca",
        {"type": _FILE, "help": "Trust these authorities (PEM) for rediss://, and no others."},
    ),
    (
        "--redis-tls-cert",
        {"type": _FILE, "help": "Our own certificate (PEM), for a Redis that asks for one."},
    ),
    ("--redis-tls-key", {"type": _FILE, "help": "The key of that certificate, if it is not in the same file."}),
)

redis_access_options = _all_of(*(option(flag, **how) for flag, how in _ACCESS_OPTIONS), _put_into_url)
"""Adds nothing: what is given goes into `redis_url`, which must be an option beside them (`paddler.store.location`)."""

later_access_options = _all_of(*(option(flag, **how | _LATER) for flag, how in _ACCESS_OPTIONS))
"""The same behind a subcommand, whose group has read the variables: adds what `taken_access` takes."""

redis_options = _all_of(
    option(
        "--redis-url",
        type=REDIS_URL,
        default=DEFAULT_REDIS_URL,
        help="Redis or Valkey that holds the queue: redis://, rediss://, unix:// or redis+sentinel://.",
    ),
    redis_access_options,
    option(
        "--redis-prefix", type=REDIS_PREFIX, default=DEFAULT_REDIS_PREFIX, help="What every key in Redis begins with."
    ),
)
"""Adds `redis_url` and `redis_prefix`."""


def _keep_endpoint(ctx: click.Context, _param: click.Parameter, value: str) -> None:
    ctx.meta[_AWS_ENDPOINT] = value


aws_options = _all_of(
    option(
        "--aws-metadata-endpoint",
        default=lambda: os.environ.get(AWS_VARIABLE, DEFAULT_ENDPOINT),
        show_default=DEFAULT_ENDPOINT,
        is_eager=True,  # before the addresses, which ask there
        expose_value=False,
        callback=_keep_endpoint,
        help=f"Who is asked for an address that is {LOCAL_IPV4}; {AWS_VARIABLE} names it too.",
    )
)
"""Adds nothing: for commands that have flags of type `ADDRESS`."""

waiting_options = _all_of(
    option(
        "--buffered-request-timeout",
        type=click.IntRange(min=0),
        default=10_000,
        help="Milliseconds a request may wait for a slot before it is answered with 504; 0 waits not at all.",
    ),
    option(
        "--max-buffered-requests",
        type=click.IntRange(min=0),
        default=30,
        help="How many requests may wait in a pool's buffer; one more is answered with 503.",
    ),
    option(
        "--inference-item-timeout",
        type=click.IntRange(min=1),
        default=30_000,
        help="Milliseconds between two tokens, and before the first, after which a request is given up with 504.",
    ),
)
"""Adds `buffered_request_timeout`, `max_buffered_requests` and `inference_item_timeout`: the balancer's, and `up`'s."""

admission_options = _all_of(
    option(
        "--max-estimated-wait",
        type=click.IntRange(min=0),
        default=0,
        help="Milliseconds, by the fleet's measured rate, past which a request is answered with 503; 0 is no bound.",
    ),
    option(
        "--tenant-share",
        type=click.FloatRange(min=0, max=1, min_open=True),
        default=1.0,
        help="The share of the buffer that one tenant may fill; one request more is answered with 429.",
    ),
    option(
        "--max-batch-requests",
        type=click.IntRange(min=0),
        default=100_000,
        help="How many batch and background requests may wait in a pool.",
    ),
)
"""Adds `max_estimated_wait`, `tenant_share` and `max_batch_requests`."""

insecure_option = option(
    "--insecure",
    is_flag=True,
    help="Let other machines use the fleet although there are no API keys: whoever reaches an address may do anything.",
)
"""Adds `insecure`."""

sharing_options = _all_of(
    option(
        "--share-prefix-cache",
        is_flag=True,
        help="Let tenants use each other's cached prompts: the time a prompt takes then tells what others have asked.",
    ),
)
"""Adds `share_prefix_cache`."""

storage_options = _all_of(
    option(
        "--response-ttl",
        type=click.IntRange(min=1000),
        default=86_400_000,
        help="Milliseconds for which a response of /v1/responses is stored from its end on.",
    ),
    option(
        "--max-stored-responses",
        type=click.IntRange(min=1),
        default=10_000,
        help="How many responses a pool stores; those used longest ago make room.",
    ),
    option(
        "--max-stored-bytes",
        type=click.IntRange(min=1),
        default=256 * 1024 * 1024,
        help="How many bytes of input the stored responses of a pool have together; they make room alike.",
    ),
)
"""Adds `response_ttl`, `max_stored_responses` and `max_stored_bytes`."""

pool_option = option("--pool", type=POOL, default=DEFAULT_POOL, help="The pool of agents that this process belongs to.")
"""Adds `pool`."""

log_options = _all_of(
    option("--log-level", type=click.Choice(LOG_LEVELS), default="info", help="The least severe level to log."),
    option(
        "--log-format",
        type=click.Choice(LOG_FORMATS),
        default="auto",
        help="auto is console on a terminal and json elsewhere.",
    ),
)
"""Adds `log_level` and `log_format`, the arguments of `logs.configure`."""
