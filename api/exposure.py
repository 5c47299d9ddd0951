"""Who can reach a service: without API keys only this machine may, unless the operator says otherwise."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence

from api.services import Service
from api.sockets import bound_address
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store
from paddler.tenants.keys import ApiKeys
from paddler.tenants.ring import KeyRing

PATIENCE_S = 3.0

log = get_logger(__name__)


class Exposed(Exception):
    """Anybody could use the fleet; the message names flag, address and remedy."""


FLAGS = {
    "management": "--management-addr",
    "inference": "--inference-addr",
    "openai": "--compat-openai-addr",
    "panel": "--web-admin-panel-addr",
}
"""By name of the service."""


async def guard_exposed(services: Sequence[Service], ring: KeyRing, keys: ApiKeys, store: Store) -> None:
    """Have everybody need a key where other machines can reach a service. Raises `Exposed` when there is none; all
    that was open is closed then."""
    listeners = {FLAGS[service.name]: service.listener for service in services}
    if not (exposed := exposed_flags(listeners)):
        return
    ring.require()
    try:
        await check_exposure(exposed, keys)
    except Exposed:
        for listener in listeners.values():
            listener.close()
        await store.close()
        raise


def exposed_flags(listeners: Mapping[str, socket.socket]) -> list[str]:
    """Of listening sockets by flag those that other machines can reach, as `--flag address`."""
    return [f"{flag} {bound_address(one)}" for flag, one in listeners.items() if not is_loopback(one)]


async def check_exposure(exposed: list[str], keys: ApiKeys) -> None:
    """Raises `Exposed` when there is no key.

    While Redis cannot be asked everybody needs a key, which then nobody has: the balancer may start."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            if await keys.num_keys():
                return
    except TROUBLE as error:
        log.warning("cannot tell whether there are API keys; nobody is let in without one", error=str(error))
        return
    raise Exposed(
        f"{' and '.join(exposed)} can be reached from other machines, and there are no API keys: anybody could use "
        "this fleet. Make one with `paddler keys create NAME`, listen on 127.0.0.1, or say --insecure."
    )


def is_loopback(listener: socket.socket) -> bool:
    """Whether this machine alone can reach it."""
    host = listener.getsockname()[0]
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
