"""Hosts whose images a balancer fetches: the flag `--allow-image-hosts`."""

from __future__ import annotations

import re

import rich_click as click
from msgspec import Struct

from paddler.settings import option

ALLOW_IMAGE_HOSTS = "--allow-image-hosts"

_HOST = re.compile(r"\*|\.?[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]+\]")
_PLAIN = "http://"


class ImageHost(Struct, frozen=True):
    """`name` is a host, `.example.org` it and all names below, `*` any. `may_be_plain`: also over HTTP."""

    name: str
    may_be_plain: bool = False

    @property
    def is_one(self) -> bool:
        """It is named itself, so that whoever named it knows where it is."""
        return self.name != "*" and not self.name.startswith(".")

    def allows(self, host: str) -> bool:
        if self.name == "*":
            return True
        if self.is_one:
            return host == self.name.strip("[]")
        return host == self.name[1:] or host.endswith(self.name)


class _ImageHosts(click.ParamType[tuple[ImageHost, ...], str | tuple[ImageHost, ...]]):
    name = "host[,host...]|*"

    def convert(
        self, value: str | tuple[ImageHost, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[ImageHost, ...]:
        if isinstance(value, tuple):
            return value
        found: list[ImageHost] = []
        for one in filter(None, (part.strip().lower() for part in value.split(","))):
            host = ImageHost(one.removeprefix(_PLAIN), one.startswith(_PLAIN))
            if not _HOST.fullmatch(host.name) or (host.may_be_plain and not host.is_one):
                self.fail(
                    f"{one!r} is none of: images.example.org, .example.org (it and all names below), * (any, in public "
                    "networks) and http://images.internal (without TLS; one host).",
                    param,
                    ctx,
                )
            found.append(host)
        return tuple(found)


image_hosts_option = option(
    ALLOW_IMAGE_HOSTS,
    type=_ImageHosts(),
    default=(),
    show_default="none",
    help="Hosts whose images requests may name by address, with commas between; * is any. Others are refused, and what "
    "leads into private networks unless its host is named here itself; http://HOST allows it without TLS.",
)
"""Adds `allow_image_hosts`."""
