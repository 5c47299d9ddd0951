"""`--management-addr` of an agent: a balancer says where Redis is, before anything of the agent begins."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import httpx
import msgspec
import rich_click as click
from click.core import ParameterSource

from paddler import logs
from paddler.agent_access import DECODER, PATH, AgentAccess, without_login
from paddler.aws_metadata import LOCAL_IPV4
from paddler.clock import Clock, SystemClock
from paddler.logs import get_logger
from paddler.settings import Address, current_context, option
from paddler.store.location import locate

PATIENCE_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0

log = get_logger(__name__)

_F = TypeVar("_F", bound=Callable[..., Any])


class CannotTell(Exception):
    """The balancer refuses, or what answers is none: time mends nothing."""


class _Away(Exception):
    """It cannot be reached or not answer now."""


class _ServiceUrl(click.ParamType[str, str]):
    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value.startswith(LOCAL_IPV4):
            return value  # of a balancer on this machine, whose variable is of the same name
        try:
            if "://" not in value:
                return Address.parse(value).url
            parts = urlsplit(value)
            if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.username:
                return f"{parts.scheme}://{parts.netloc}"
        except ValueError:
            pass
        self.fail(f"{value!r} is neither host:port nor a URL such as https://paddler.example:8060.", param, ctx)


def told_redis_options(function: _F) -> _F:
    """Above `redis_options`: what these add is asked for at a balancer where `--management-addr` is given, and then
    completed by the flags of access."""

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        address: str | None = given.pop("management_addr")
        key_file: Path | None = given.pop("management_api_key_file")
        if address is None or _is_for_others(key_file):
            return function(*args, **given)
        if address.startswith(LOCAL_IPV4):
            raise click.UsageError(f"--management-addr {address} is where a balancer listens; say which one to ask.")
        if key_file is None:
            raise click.UsageError("--management-addr needs --management-api-key-file: a key of scope `agent`.")
        logs.configure("agent", given["log_level"], given["log_format"])
        try:
            told = asyncio.run(ask_until_told(address, read_key(key_file), SystemClock()))
        except CannotTell as error:
            raise click.ClickException(f"--management-addr {address}: {error}") from None
        given["redis_url"] = _for_own_login(told.redis_url, given)
        if not _is_given("redis_prefix"):
            given["redis_prefix"] = told.redis_prefix
        return function(*args, **given)

    for one in (
        option(
            "--management-api-key-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="A file with an API key of scope `agent`, one line, for --management-addr.",
        ),
        option(
            "--management-addr",
            type=_ServiceUrl(),
            help="In place of --redis-url: the management service of a balancer, host:port or URL, that tells where "
            "Redis is.",
        ),
    ):
        command = one(command)
    return cast("_F", command)


def _for_own_login(url: str, given: dict[str, Any]) -> str:
    """Flags come before what is told: beside that a second user or password would be one too many."""
    if given["redis_username"] is not None:
        return without_login(url)
    return url if given["redis_password_file"] is None else without_login(url, keeps_user=True)


def _is_for_others(key_file: Path | None) -> bool:
    """Whether `PADDLER_MANAGEMENT_ADDR` is there for the balancer of this machine: one place for Redis is enough, and
    what is on the command line comes first. Raises `UsageError` where both are."""
    if _source("management_addr") is not ParameterSource.COMMANDLINE:
        return key_file is None or _is_given("redis_url")
    if _source("redis_url") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--redis-url and --management-addr both say where Redis is: leave one out.")
    return False


def _source(name: str) -> ParameterSource | None:
    return current_context().get_parameter_source(name)


def _is_given(name: str) -> bool:
    return _source(name) is not ParameterSource.DEFAULT


def read_key(path: Path) -> str:
    """Raises `UsageError`."""
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--management-api-key-file {path}: {error}") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise click.UsageError(f"--management-api-key-file {path} holds no key: it has to be one line.")
    return key


async def ask_until_told(url: str, key: str, clock: Clock) -> AgentAccess:
    """Waits for a balancer that is not there yet, as agents wait for Redis. Raises `CannotTell`."""
    pause_s, said = FIRST_PAUSE_S, ""
    while True:
        try:
            return await _ask(url, key)
        except _Away as error:
            if str(error) != said:
                said = str(error)
                log.warning("the balancer does not say where Redis is yet, trying again", url=url, error=said)
        await clock.sleep(pause_s * random.uniform(0.8, 1.2))
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


async def _ask(url: str, key: str) -> AgentAccess:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()  # those of this machine too, and those of SSL_CERT_FILE
    try:
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=PATIENCE_S) as http:
            answer = await http.get(f"{url}{PATH}", headers={"authorization": f"Bearer {key}"})
    except httpx.TransportError as error:
        raise _Away(f"{type(error).__name__}: {error}") from None
    if answer.status_code >= 500 or answer.status_code == 429:
        raise _Away(f"it answers {answer.status_code}")
    if answer.status_code != 200:
        raise CannotTell(_words(answer))
    try:
        told = DECODER.decode(answer.content)
        locate(told.redis_url)
    except (msgspec.MsgspecError, ValueError):
        raise CannotTell("what answers there is no management service of Paddler.") from None
    return told


def _words(answer: httpx.Response) -> str:
    try:
        words = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        words = "this is no answer of a management service of Paddler; of which version is it?"
    return f"{answer.status_code}, {words}"
