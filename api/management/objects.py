"""The objects of the management service, as types."""

from __future__ import annotations

from typing import Literal, TypedDict

from api.management.issue_objects import AgentIssue


class IssueDetail(TypedDict):
    """`action` is what Paddler does about it, `remedy` what its operator can do. `kind` may be one of ours, which
    `issues` has as one of Paddler 4.1's."""

    kind: str
    detail: str
    action: str
    remedy: str


class TierObject(TypedDict):
    """Of one tier behind an agent's KV cache (`ram`, `disk`, `peer`, `shared`): blocks found and not found there since
    its start, tokens that came back and the ms of prefill that they saved, blocks that were refused, failures of the
    tier; what it holds of this agent's now; how fast it was read, null before the first time."""

    tier: str
    hits: int
    misses: int
    tokens: int
    saved_ms: int
    refused: int
    failures: int
    bytes: int
    blocks: int
    bytes_per_second: float | None


class AgentObject(TypedDict):
    """What is Paddler 4.1's, then what is ours. `state` is `ready`, `waiting` (for a model, or its download),
    `loading`, `failed`, `draining`, `drained`, `leaving` or `lost` (its lease is over; whoever meets it reaps it);
    `is_draining` holds in any of them. `progress` is 0 to 1. Speeds are measured, `cache_hit_ratio` is of the tokens of
    all prompts since its start; its KV cache holds `held_tokens` of `context_size`, in `held_sequences` that run or
    have ended, of the latter `max_parked` at most; `restored_tokens` have come back from host memory since then,
    `saved_tokens` are there (`--kv-ram`), `tiers` is all that lies behind the KV cache. `version` is Paddler's, `build`
    that of what computes, `desired_version` of the desired state that it has. `since_renewal_ms` is how long ago it
    renewed its lease; a stream, which tells what changes, has null there, and so has an agent that does not tell."""

    id: str
    name: str | None
    desired_slots_total: int
    slots_total: int
    slots_processing: int
    model_path: str | None
    download_current: int
    download_total: int
    download_filename: str | None
    download_indeterminate: bool
    issues: list[AgentIssue]
    state_application_status: str
    uses_chat_template_override: bool
    state: str
    is_draining: bool
    phase: str | None
    progress: float | None
    model: str | None
    desired_version: int | None
    context_size: int | None
    tokens_per_second: float | None
    prefill_tokens_per_second: float | None
    cache_hit_ratio: float | None
    saved_tokens: int
    saved_bytes: int
    restored_tokens: int
    held_sequences: int
    held_tokens: int
    max_parked: int
    tiers: list[TierObject]
    version: str | None
    build: str | None
    host: str | None
    pid: int | None
    issue_details: list[IssueDetail]
    since_renewal_ms: int | None


class AgentList(TypedDict):
    """By name."""

    agents: list[AgentObject]


class BufferedRequests(TypedDict):
    buffered_requests_current: int


class FleetHealth(TypedDict):
    status: Literal["ok", "no slot available"]
    slots_idle: int
    slots_processing: int
    requests_buffered: int
    agents: int


class HealthTrouble(TypedDict):
    status: Literal["error"]
    error_message: str
