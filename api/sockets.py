"""Binding the addresses of services before anything else starts, so that a taken one is said at once."""

from __future__ import annotations

import errno
import os
import socket

from paddler.settings import Address

BACKLOG = 2048


class AddressError(Exception):
    """An address cannot be bound; the message names flag, address and remedy in one line."""


def bind(flag: str, address: Address) -> socket.socket:
    """A listening socket. A host name is resolved, IPv4 before IPv6. Raises `AddressError`."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise AddressError(f"{flag} {address}: the host cannot be resolved ({error.strerror}).") from None
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    is_any_ipv6 = address.host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (str(where[0]), address.port), family=family, backlog=BACKLOG, dualstack_ipv6=is_any_ipv6
        )
    except OSError as error:
        raise AddressError(f"{flag} {address}: {_why(error)}") from None


def bound_address(listener: socket.socket) -> Address:
    host, port = listener.getsockname()[:2]
    return Address(host, port)


def url_of(listener: socket.socket, *, is_tls: bool) -> str:
    """Where it can be called from this machine."""
    url = bound_address(listener).url
    return url.replace("http:", "https:", 1) if is_tls else url


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process or service listens there; stop it or choose another port."
        case errno.EACCES:
            return "not allowed; ports below 1024 belong to root, choose a higher one."
        case errno.EADDRNOTAVAIL:
            return "no network interface of this machine has this address; 0.0.0.0 is all of them."
        case code:
            return f"{os.strerror(code or 0)}."
