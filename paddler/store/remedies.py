"""What an operator can do when Redis cannot be reached, or refuses: in the log beside the error, field `remedy`."""

from __future__ import annotations

import builtins
import socket
import ssl
from collections.abc import Iterator

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,
)

START = "start Redis or Valkey there, or name another one with --redis-url"
NAME = "the name of its host is not known here: correct --redis-url, or the name service of this machine"
TIME = "nothing answers in time: look for a firewall between here and there, and whether that machine is overloaded"
CREDENTIALS = "put its user and password into --redis-url: redis://user:password@host:6379/0"
RIGHTS = "the user in --redis-url may not do this: give it the right to these commands and keys (ACL SETUSER)"
TLS = "only one side speaks TLS, or its certificate is not trusted here: rediss:// is with TLS, redis:// without"
FULL = "it has no memory left: raise its maxmemory, or remove what else is in it"
REPLICA = "it is a replica, or is becoming one: name the primary with --redis-url"
LOADING = "it is reading its data; wait until it has"
DISK = "it cannot write to its disk: free some space there and look into its log"
OLD = "it is too old, or no Redis: 7.0 or Valkey 8 is needed"
DATABASE = "correct the number of the database at the end of --redis-url; most have 16, a cluster has 0 alone"
LOG = "look into the log of the server that --redis-url names"

_BY_WORDS = {
    "NOAUTH": CREDENTIALS,
    "WRONGPASS": CREDENTIALS,
    "NOPERM": RIGHTS,
    "MISCONF": DISK,
    "unknown command": OLD,
    "DB index": DATABASE,
    "Connection refused": START,
    "Connect call failed": START,
    "No such file": START,
    "Name or service not known": NAME,
    "Temporary failure in name resolution": NAME,
    "nodename nor servname": NAME,
    "SSL": TLS,
    "CERTIFICATE": TLS,
    "imeout": TIME,
    "timed out": TIME,
}


def remedy_for(error: BaseException) -> str:
    """One sentence, without a stop."""
    for one in _chain(error):
        match one:
            case NoPermissionError() | AuthorizationError():
                return RIGHTS
            case AuthenticationError():
                return CREDENTIALS
            case BusyLoadingError():
                return LOADING
            case OutOfMemoryError():
                return FULL
            case ReadOnlyError():
                return REPLICA
            case ssl.SSLError():
                return TLS
            case socket.gaierror():
                return NAME
            case TimeoutError() | builtins.TimeoutError():
                return TIME
            case ConnectionRefusedError() | FileNotFoundError():
                return START
            case _:
                pass
    text = str(error)
    return next((remedy for words, remedy in _BY_WORDS.items() if words in text), LOG)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
