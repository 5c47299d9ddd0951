"""Agents as an operator sees them: what each has told of itself, and what is true of it in Redis."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from paddler.issues import Issue, decode_issues
from paddler.store.client import Store
from paddler.store.format import FIRST_FORMAT
from paddler.store.keys import PoolKeys
from paddler.store.paging import in_pages
from paddler.tier_stats import TierStats, decode_tiers

FIELDS = (
    *("name", "model", "state", "slots", "prefill", "rate", "phase", "progress", "issues", "tiers"),
    *("desired_slots", "model_path", "drain", "drained_at", "version", "build", "host", "pid", "context_size"),
    *("prompt_tokens", "cached_tokens", "state_application_status", "desired_version", "uses_chat_template_override"),
    *("saved_bytes", "saved_tokens", "restored_tokens", "held_sequences", "held_tokens", "max_parked"),
    *("kv_url", "restore"),
    *("download_current", "download_total", "download_filename", "download_indeterminate", "lease_ms", "format"),
)
"""Of an agent's hash, as agents of every format tell them."""
JSON = ("issues", "tiers")
"""Of these, what has a form of its own."""


class Download(Struct, frozen=True, kw_only=True):
    """Of a model's file, in bytes. `is_indeterminate`: nobody knows how many there will be."""

    current: int = 0
    total: int = 0
    filename: str | None = None
    is_indeterminate: bool = False

    def __str__(self) -> str:
        """How far it is, in few words; empty if nothing is under way."""
        if not self.filename:
            return ""
        if self.is_indeterminate or not self.total:
            return f"{self.current / 1e6:,.0f} MB"
        return f"{self.current / self.total:.0%}"


class Lane(Struct, frozen=True, kw_only=True):
    """One agent. `requests` have been given to it; `prefill` and `rate` are measured tokens/s, None before that.
    `lease_left_ms` is negative when it is lost and not yet reaped. While `state` is `loading`, `phase` says with what
    it is busy and `progress`, 0 to 1, how far it is; while it is `failed`, `issues` say why.
    `desired_slots` is what it has, or will have once it serves the file `model_path`; older agents do not tell.

    `state` is `waiting` (for a model), `loading`, `failed`, `ready`, `leaving`, or of a ready one that an operator
    drains `draining` while it has requests and `drained` from then on. `is_draining` is true in any state, since
    `drained_at_ms`. `prompt_tokens` are those of the prompts that it has done since its start, `cached_tokens` how many
    it had in its cache. `saved_tokens` have left the cache and are in its host memory, `restored_tokens` have come back
    from there since its start. Its KV cache, of `context_size` cells, holds `held_tokens` tokens of `held_sequences`
    sequences that run or have ended, of the latter `max_parked` at most; `tiers` is what lies behind it, host memory
    first. At `kv_url` other agents get what it holds; what others hold it gets at `restore` tokens/s, as measured.
    `lease_ms` is the length of its lease, None of one that does not tell. `format` is that of its messages and keys
    (`paddler.store.format`)."""

    agent: str
    name: str
    model: str
    state: str
    slots: int
    requests: int
    prefill: float | None
    rate: float | None
    lease_left_ms: int
    phase: str | None = None
    progress: float | None = None
    issues: tuple[Issue, ...] = ()
    desired_slots: int = 0
    model_path: str = ""
    is_draining: bool = False
    drained_at_ms: int | None = None
    version: str = ""
    build: str = ""
    host: str = ""
    pid: int = 0
    context_size: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    saved_bytes: int = 0
    saved_tokens: int = 0
    restored_tokens: int = 0
    held_sequences: int = 0
    held_tokens: int = 0
    max_parked: int = 0
    tiers: tuple[TierStats, ...] = ()
    state_application_status: str = ""
    desired_version: int | None = None
    uses_chat_template_override: bool = False
    download: Download = Download()
    lease_ms: int | None = None
    format: int = FIRST_FORMAT
    kv_url: str = ""
    restore: float | None = None

    @property
    def since_renewal_ms(self) -> int | None:
        """How long ago it renewed its lease, which it does by getting on with its work."""
        return None if self.lease_ms is None else max(0, self.lease_ms - self.lease_left_ms)

    @property
    def is_lost(self) -> bool:
        """Its lease is over; whoever meets it reaps it."""
        return self.lease_left_ms <= 0

    @property
    def is_coming(self) -> bool:
        """It has no slots yet, and loads or downloads what will give it some."""
        is_busy = self.state == "loading" or (self.state == "waiting" and bool(self.download.filename))
        return is_busy and not self.is_lost

    @property
    def num_idle(self) -> int:
        """Slots that a request could be given to now."""
        return 0 if self.is_lost or self.state != "ready" else max(self.slots - self.requests, 0)

    @property
    def cache_hit_ratio(self) -> float | None:
        """Of the prompts' tokens, 0 to 1; None before the first."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None


async def read_lanes(store: Store, keys: PoolKeys, agents: list[tuple[str, float]], now: float) -> list[Lane]:
    """By name. `agents` are ids with the ends of their leases (ms), `now` as those."""

    def ask(pipe: Any, agent: tuple[str, float]) -> None:
        pipe.hmget(keys.agent(agent[0]), *FIELDS)
        pipe.xlen(keys.lane(agent[0]))

    answers = await in_pages(store.redis, agents, ask, is_atomic=True)
    each = zip(agents, answers[::2], answers[1::2], strict=True)
    lanes = [_lane(agent_id, expiry - now, row, requests) for (agent_id, expiry), row, requests in each]
    return sorted(lanes, key=lambda lane: (lane.name, lane.agent))


def _lane(agent_id: str, lease_left_ms: float, row: list[bytes | None], requests: int) -> Lane:
    told = {name: value.decode() for name, value in zip(FIELDS, row, strict=True) if value and name not in JSON}

    def number(name: str) -> int:
        return int(float(told.get(name, 0)))

    def measured(name: str) -> float | None:
        return float(told[name]) if name in told else None

    return Lane(
        agent=agent_id,
        name=told.get("name", ""),
        model=told.get("model", ""),
        state=_state(told.get("state", "?"), told.get("drain"), requests),
        slots=number("slots"),
        requests=requests,
        prefill=measured("prefill"),
        rate=measured("rate"),
        lease_left_ms=round(lease_left_ms),
        phase=told.get("phase"),
        progress=measured("progress"),
        issues=decode_issues(row[FIELDS.index("issues")]),
        desired_slots=number("desired_slots") or number("slots"),
        model_path=told.get("model_path", ""),
        is_draining="drain" in told,
        drained_at_ms=number("drained_at") or None,
        version=told.get("version", ""),
        build=told.get("build", ""),
        host=told.get("host", ""),
        pid=number("pid"),
        context_size=number("context_size"),
        prompt_tokens=number("prompt_tokens"),
        cached_tokens=number("cached_tokens"),
        saved_bytes=number("saved_bytes"),
        saved_tokens=number("saved_tokens"),
        restored_tokens=number("restored_tokens"),
        held_sequences=number("held_sequences"),
        held_tokens=number("held_tokens"),
        max_parked=number("max_parked"),
        tiers=decode_tiers(row[FIELDS.index("tiers")]),
        state_application_status=told.get("state_application_status", ""),
        desired_version=number("desired_version") if "desired_version" in told else None,
        uses_chat_template_override=told.get("uses_chat_template_override", "0") not in ("0", "False", "false"),
        download=Download(
            current=number("download_current"),
            total=number("download_total"),
            filename=told.get("download_filename"),
            is_indeterminate=told.get("download_indeterminate", "0") not in ("0", "False", "false"),
        ),
        lease_ms=number("lease_ms") or None,
        format=number("format") or FIRST_FORMAT,
        kv_url=told.get("kv_url", ""),
        restore=measured("restore"),
    )


def _state(state: str, asked: str | None, requests: int) -> str:
    if state != "ready" or asked is None:
        return state
    if asked == "remove":
        return "leaving"
    return "draining" if requests else "drained"
