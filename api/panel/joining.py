"""Where an agent finds this fleet, for the command that the panel gives to copy."""

from __future__ import annotations

from urllib.parse import urlsplit

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.management.asking import json_answer
from api.panel.objects import Joining
from api.panel.operations import JOINING
from paddler.agent_access import is_of_one_machine, without_files
from paddler.store.location import Tls, locate


def without_secret(url: str) -> str:
    """A URL of Redis, with its user and without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}@{host}" if parts.username else host).geturl()


def joining_of(url: str, prefix: str) -> Joining:
    """`url` is the balancer's own, or what it was told to tell agents; files in it are of the balancer's machine."""
    location = locate(url)
    login, tls = location.login, location.tls or Tls()
    files = {"--redis-tls-ca": tls.ca, "--redis-tls-cert": tls.cert, "--redis-tls-key": tls.key}
    return Joining(
        redis_url=without_secret(without_files(url)),
        redis_prefix=prefix,
        is_local=is_of_one_machine(url),
        has_secret=bool(login.password or login.password_file),
        file_flags=tuple(flag for flag, path in files.items() if path is not None),
    )


def joining_route(url: str, prefix: str) -> HTTPRouteHandler:
    told = joining_of(url, prefix)

    @get("/panel/api/joining", operation=JOINING, sync_to_thread=False)
    def get_joining() -> ASGIResponse:
        return json_answer(told)

    return get_joining
