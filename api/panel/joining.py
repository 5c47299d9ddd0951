"""Where an agent finds this fleet, for the command that the panel gives to copy."""

from __future__ import annotations

from urllib.parse import urlsplit

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.management.asking import json_answer
from api.panel.objects import Joining
from api.panel.operations import JOINING
from paddler.store.client import Store
from paddler.store.location import locate

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def joining_of(store: Store) -> Joining:
    location = locate(store.url)
    parts = urlsplit(store.url)
    shown = store.url
    if parts.password is not None:
        host = parts.netloc.rpartition("@")[2]
        shown = parts._replace(netloc=f"{parts.username}@{host}" if parts.username else host).geturl()
    return Joining(
        redis_url=shown,
        redis_prefix=store.prefix,
        is_local=location.path is not None or all(host.strip("[]") in LOOPBACK for host, _ in location.hosts),
        has_secret=parts.password is not None,
    )


def joining_route(store: Store) -> HTTPRouteHandler:
    told = joining_of(store)

    @get("/panel/api/joining", operation=JOINING, sync_to_thread=False)
    def get_joining() -> ASGIResponse:
        return json_answer(told)

    return get_joining
