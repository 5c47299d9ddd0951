"""What the panel's own routes take and answer, as types. Times that end in `_at_ms` are since the epoch."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from paddler.doctor.finding import Finding
from paddler.metrics.history import TimedSample


class LoginRequest(Struct, frozen=True, forbid_unknown_fields=True):
    key: str


class Me(Struct, frozen=True, kw_only=True):
    """Who looks. `needs_key` is false while there are no API keys: everybody may do everything. `name` is that of the
    key, `version` that of this balancer."""

    needs_key: bool
    logged_in: bool
    name: str | None
    tenant: str | None
    version: str


class HistoryAnswer(Struct, frozen=True, kw_only=True):
    """Of the last 15 minutes, the oldest first, each pool by itself."""

    step_ms: int
    samples: list[TimedSample]


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one topic: `reset` forgets what was told before, `set` are things by key, `gone` are keys."""

    reset: bool = False
    set: dict[str, object] = {}
    gone: list[str] = []


class Joining(Struct, frozen=True, kw_only=True):
    """`redis_url` is without its password and without files, which is why `has_secret` says that a password is needed.
    `is_local`: nothing beyond the balancer's own machine reaches that Redis. `file_flags` are the flags of an agent for
    the files of TLS that the balancer has for it, and the agent's machine must have, too."""

    redis_url: str
    redis_prefix: str
    is_local: bool
    has_secret: bool
    file_flags: tuple[str, ...] = ()


class ServiceObject(Struct, frozen=True, kw_only=True):
    """One address of this balancer."""

    name: str
    flag: str
    url: str


class LimitObject(Struct, frozen=True, kw_only=True):
    """`value` is of this balancer; 0 may mean no limit, which `meaning` says then."""

    flag: str
    value: int | float | str
    unit: Literal["ms", "bytes", "requests", "responses", "share", ""]
    meaning: str


class RedisObject(Struct, frozen=True, kw_only=True):
    """`url` is without its password. While Redis does not answer all but that and `prefix` is null, or empty; what it
    does not tell is null, too: a managed one may refuse. `memory_max_bytes` 0: no limit."""

    url: str
    prefix: str
    is_reachable: bool
    latency_ms: float | None = None
    memory_used_bytes: int | None = None
    memory_max_bytes: int | None = None
    clients: int | None = None
    findings: list[Finding] = []


class ProcessObject(Struct, frozen=True, kw_only=True):
    """A process that said so within the last minute. `clock_ms` is how far its clock is ahead of that of Redis."""

    kind: str
    name: str
    version: str
    host: str
    pid: int
    since_at_ms: int
    clock_ms: int


class SettingsAnswer(Struct, frozen=True, kw_only=True):
    """Of the balancer that answers, and of Redis; `processes` are of the whole fleet, null where this user of Redis may
    not look for them."""

    version: str
    python_version: str
    host: str
    pid: int
    is_key_needed: bool
    services: list[ServiceObject]
    limits: list[LimitObject]
    redis: RedisObject
    processes: list[ProcessObject] | None
