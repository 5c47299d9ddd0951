"""Are the addresses free? Asked before anything starts, so that a taken one is said at once and by its flag."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

from paddler.settings import Address
from paddler.up.problems import CannotStart


def settle_addresses(wanted: dict[str, Address]) -> dict[str, Address]:
    """The addresses by flag, port 0 replaced by a free one. Raises `CannotStart` naming flag, address and remedy.

    Another program may still take a port before the balancer binds it; then the balancer says so.
    """
    settled: dict[str, Address] = {}
    with ExitStack() as stack:  # all stay bound until the last is settled, so no two get the same free port
        for flag, address in wanted.items():
            for other, used in settled.items():
                if used == address:
                    raise CannotStart(f"{flag} and {other} are both {address}; give each service its own address.")
            listener = stack.enter_context(_listen(flag, address))
            settled[flag] = Address(address.host, listener.getsockname()[1])
    return settled


def _listen(flag: str, address: Address) -> socket.socket:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotStart(f"{flag} {address}: the host cannot be resolved ({error.strerror}).") from None
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    try:
        return socket.create_server((str(where[0]), address.port), family=family)
    except OSError as error:
        raise CannotStart(f"{flag} {address}: {_explain(flag, address, error)}") from None


def _explain(flag: str, address: Address, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            other = Address(address.host, address.port + 1000 if address.port < 64000 else address.port - 1000)
            return f"another program listens there. Stop it, or choose another port, such as {flag} {other}"
        case errno.EACCES:
            return "not allowed. Ports below 1024 belong to root; choose a higher one."
        case errno.EADDRNOTAVAIL:
            return "no network interface of this machine has this address; 0.0.0.0 is all of them."
        case code:
            return f"{os.strerror(code or 0)}."
