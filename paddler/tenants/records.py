"""What is stored of an API key, and what may be given to one. Times are ms since the epoch.

Records are MessagePack maps: an older process skips fields it does not know, so new ones have defaults.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

ANONYMOUS = "anonymous"
"""The tenant of everybody while there is no API key."""

Scope = Literal["inference", "management", "agent"]
"""`inference`: requests, files and batches; `management`: the operator's routes; `agent`: where balancers tell
agents that Redis is."""
SCOPES: tuple[Scope, ...] = ("inference", "management", "agent")

RequestClass = Literal["interactive", "normal", "batch"]

NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
NAME_RULE = "letters, digits, dots, dashes and underscores, at most 63, a letter or digit first"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
"""Of a key or a tenant, which is part of the names of Redis keys: no colon, no brace."""

MAX_LIMIT = 10**12
Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
MIN_WEIGHT, MAX_WEIGHT = 0.01, 100.0


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one key may do; None is no limit. Tokens are those of prompts, cached ones too, and of output.

    Files and batches are counted of all of its tenant (`paddler/batches/quota.py`): bytes stored, batches that have not
    ended and lines of these; None is the balancer's own setting.

    `default_class` is that of requests that name none, `max_class` the highest that any gets; `weight` 2 is twice the
    share of 1 while others wait."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_in_flight: Limit | None = None
    daily_tokens: Limit | None = None
    max_file_bytes: Limit | None = None
    max_open_batches: Limit | None = None
    max_batch_lines: Limit | None = None
    default_class: RequestClass = "normal"
    max_class: RequestClass = "interactive"
    weight: Annotated[float, Meta(ge=MIN_WEIGHT, le=MAX_WEIGHT)] = 1.0


class ApiKey(Struct, frozen=True, kw_only=True):
    """`secret_hash` is the SHA-256 of the secret, which nobody stores; the one before a rotation, `old_hash`, is good
    until `old_until_ms`. A revoked key stays in the list, so that usage has its name."""

    id: str
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    secret_hash: bytes
    created_ms: int
    limits: Limits = Limits()
    expires_ms: int | None = None
    revoked_ms: int | None = None
    rotated_ms: int | None = None
    old_hash: bytes = b""
    old_until_ms: int = 0

    def is_valid(self, now_ms: float) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)

    def state(self, now_ms: float) -> Literal["active", "revoked", "expired"]:
        if self.revoked_ms is not None:
            return "revoked"
        return "active" if self.is_valid(now_ms) else "expired"


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ApiKey)


def encode_key(key: ApiKey) -> bytes:
    return _encoder.encode(key)


def decode_key(data: bytes) -> ApiKey:
    return _decoder.decode(data)
