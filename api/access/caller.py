"""On whose behalf a call is made."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from paddler.tenants.account import Account
from paddler.tenants.records import ANONYMOUS
from paddler.tenants.ring import KeyRing

_STATE_KEY = "paddler_caller"


class Caller(Struct, frozen=True):
    """`account` is None, and so is `ring`, while there is no API key."""

    tenant: str = ANONYMOUS
    account: Account | None = None
    ring: KeyRing | None = None

    @property
    def owner(self) -> str | None:
        """The tenant that what is looked for must belong to; None while everything is everybody's."""
        return None if self.account is None else self.tenant

    def renewed(self) -> Caller:
        """For the next request of a connection that was let in once. Raises `Unauthorized` if its key is no longer
        good."""
        if self.account is None or self.ring is None:
            return self
        key = self.ring.renewed(self.account.key)
        return Caller(key.tenant, Account(key=key), self.ring)


ANYBODY = Caller()


def caller_of(scope: Any) -> Caller:
    """Of an ASGI scope, HTTP or WebSocket."""
    return scope["state"].get(_STATE_KEY, ANYBODY)


def remember_caller(scope: Any, caller: Caller) -> None:
    """For `caller_of`."""
    scope["state"][_STATE_KEY] = caller
