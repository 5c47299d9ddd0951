"""What a balancer tells an agent that knows its address and has an API key of scope `agent`: where Redis is.

Agents connect to Redis; this is for hosts that are given one address and one key, and nothing that changes when Redis
moves. What is told is the URL, with a password if that has one, but for files, which are of the balancer's machine:
`--redis-password-file` and the like of the agent come on top.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from msgspec import Struct

from paddler.errors import Conflict
from paddler.store.location import locate

PATH = "/api/v1/agent_access"

_OF_FILES = ("password_file", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "sentinel_password_file")


class AgentAccess(Struct, frozen=True):
    """Where the fleet's queue is: flags `--redis-url` and `--redis-prefix` of its agents."""

    redis_url: str
    redis_prefix: str


DECODER = msgspec.json.Decoder(AgentAccess)


def without_files(url: str) -> str:
    """The URL without what names files of this machine."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in _OF_FILES]
    query = urlencode(kept, safe="/")
    return url.partition("?")[0] + (f"?{query}" if query else "")


def without_login(url: str, *, keeps_user: bool = False) -> str:
    """The URL for who has a password of its own, or with `keeps_user` that of the same ACL user."""
    netloc = urlsplit(url).netloc
    login, _, where = netloc.rpartition("@")
    user = login.partition(":")[0] if keeps_user else ""
    return url.replace(f"://{netloc}", f"://{user}@{where}" if user else f"://{where}", 1)


def told_to(access: AgentAccess, host: str | None) -> AgentAccess:
    """What an agent that calls from `host` is told. Raises `Conflict` where it could not get there."""
    if is_of_one_machine(access.redis_url) and not _is_loopback(host):
        raise Conflict(
            "This balancer's Redis is at an address of its own machine alone; --agent-redis-url of the balancer says "
            "where agents of other machines find it."
        )
    return access


def is_of_one_machine(url: str) -> bool:
    """Whether it leads to a socket or a loopback address."""
    location = locate(url)
    return location.path is not None or all(_is_loopback(host) for host, _ in location.hosts)


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
