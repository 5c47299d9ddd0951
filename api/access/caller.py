"""On whose behalf a call is made."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from paddler.errors import Unauthorized
from paddler.tenants.account import Account
from paddler.tenants.records import ANONYMOUS, Limits
from paddler.tenants.ring import NO_KEY, KeyRing

_STATE_KEY = "paddler_caller"


class Caller(Struct, frozen=True):
    """`account` is None while there is no API key; `ring` is that of the gate, if there is any."""

    tenant: str = ANONYMOUS
    account: Account | None = None
    ring: KeyRing | None = None

    @property
    def owner(self) -> str | None:
        """The tenant that what is looked for must belong to; None while everything is everybody's."""
        return None if self.account is None else self.tenant

    @property
    def limits(self) -> Limits | None:
        """Of its key."""
        return None if self.account is None else self.account.key.limits

    @property
    def is_let_in(self) -> bool:
        """Still: as `renewed` says."""
        try:
            self.renewed()
        except Unauthorized:
            return False
        return True

    def renewed(self) -> Caller:
        """For the next request of a connection that was let in once. Raises `Unauthorized` if its key is no longer
        good, and where it had none and everybody needs one by now."""
        if self.ring is None or (self.account is None and self.ring.is_open):
            return self
        if self.account is None:
            raise Unauthorized(NO_KEY)
        key = self.ring.renewed(self.account.key)
        return Caller(key.tenant, Account(key=key), self.ring)


ANYBODY = Caller()


def caller_of(scope: Any) -> Caller:
    """Of an ASGI scope, HTTP or WebSocket."""
    return scope["state"].get(_STATE_KEY, ANYBODY)


def remember_caller(scope: Any, caller: Caller) -> None:
    """For `caller_of`."""
    scope["state"][_STATE_KEY] = caller
