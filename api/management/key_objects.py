"""API keys and usage as the management service takes and shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from paddler.batches.quota import Holding
from paddler.tenants.keys import NewKey
from paddler.tenants.records import ApiKey, Limits, Name, Scope
from paddler.tenants.usage import Group, UsageRow

MAX_OVERLAP_MS = 30 * 86_400_000

Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=3)]


class CreateKey(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/v1/keys`. Without `tenant` it is the tenant of its own name; `expires_at` has a time zone."""

    name: Name
    tenant: Name | None = None
    scopes: Scopes = msgspec.field(default_factory=lambda: list[Scope](["inference"]))
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    limits: Limits = Limits()


class RotateKey(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/v1/keys/{key_id}/rotate`: for how many ms the present secret is good beside the new one."""

    overlap_ms: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_MS)] = 0


class KeyObject(Struct, kw_only=True):
    """A key, without its secret, which nobody has stored."""

    id: str
    name: str
    tenant: str
    scopes: list[Scope]
    state: Literal["active", "revoked", "expired"]
    limits: Limits
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    rotated_at: str | None


class KeyList(Struct):
    """The oldest first."""

    keys: list[KeyObject]


class NewKeyObject(Struct):
    """`secret` is the whole key for its holder: it is shown this once."""

    key: KeyObject
    secret: str


class ForgottenKey(Struct):
    id: str
    forgotten: Literal[True] = True


class UsageAnswer(Struct):
    """Days in UTC, both included; `by` is what rows are grouped by. `held` is what tenants have now of files and open
    batches."""

    first: str = msgspec.field(name="from")
    last: str = msgspec.field(name="to")
    by: list[Group] = msgspec.field(name="group_by")
    usage: list[UsageRow] = msgspec.field()
    held: list[Holding] = msgspec.field()


def key_object(key: ApiKey, now_ms: float) -> KeyObject:
    return KeyObject(
        id=key.id,
        name=key.name,
        tenant=key.tenant,
        scopes=list(key.scopes),
        state=key.state(now_ms),
        limits=key.limits,
        created_at=_time(key.created_ms) or "",
        expires_at=_time(key.expires_ms),
        revoked_at=_time(key.revoked_ms),
        rotated_at=_time(key.rotated_ms),
    )


def new_key_object(new: NewKey, now_ms: float) -> NewKeyObject:
    return NewKeyObject(key_object(new.key, now_ms), new.secret)


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
