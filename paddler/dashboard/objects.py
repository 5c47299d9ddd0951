"""What the management service tells, as far as the dashboard shows it. What a newer or older balancer tells more is
passed over, what it does not tell has the default.

Times are ms; those that end in `_at_ms` are since the epoch, by Redis's clock."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class IssueDetail(Struct, frozen=True):
    """What is wrong, what Paddler does about it and what its operator can do."""

    kind: str
    detail: str = ""
    action: str = ""
    remedy: str = ""


class Tier(Struct, frozen=True, kw_only=True):
    """Of one tier behind an agent's KV cache."""

    tier: str
    hits: int = 0
    misses: int = 0
    tokens: int = 0
    saved_ms: int = 0
    refused: int = 0
    failures: int = 0
    bytes: int = 0
    blocks: int = 0


class Agent(Struct, frozen=True, kw_only=True):
    """One agent. `since_renewal_ms` is how long ago it renewed its lease; streams do not tell."""

    id: str
    name: str | None = None
    state: str = "?"
    is_draining: bool = False
    phase: str | None = None
    progress: float | None = None
    slots_total: int = 0
    slots_processing: int = 0
    desired_slots_total: int = 0
    model: str | None = None
    model_path: str | None = None
    context_size: int | None = None
    tokens_per_second: float | None = None
    prefill_tokens_per_second: float | None = None
    cache_hit_ratio: float | None = None
    held_tokens: int = 0
    held_sequences: int = 0
    max_parked: int = 0
    saved_tokens: int = 0
    saved_bytes: int = 0
    restored_tokens: int = 0
    tiers: list[Tier] = []
    download_current: int = 0
    download_total: int = 0
    download_filename: str | None = None
    download_indeterminate: bool = False
    issues: list[dict[str, Any]] = []
    issue_details: list[IssueDetail] = []
    state_application_status: str = ""
    desired_version: int | None = None
    uses_chat_template_override: bool = False
    version: str | None = None
    build: str | None = None
    host: str | None = None
    pid: int | None = None
    since_renewal_ms: int | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or self.id

    @property
    def slots_idle(self) -> int:
        """Slots that a request could be given to now."""
        return max(0, self.slots_total - self.slots_processing) if self.state == "ready" else 0


class AgentList(Struct, frozen=True):
    agents: list[Agent]


class BufferedRequests(Struct, frozen=True):
    buffered_requests_current: int


class Pool(Struct, frozen=True, kw_only=True):
    """`demand` counts unfinished requests, but for those of class batch, which are `demand_batch`."""

    name: str
    models: list[str] = []
    waiting: dict[str, int] = {}
    oldest_wait_ms: int | None = None
    demand: int = 0
    demand_batch: int = 0
    backlog_tokens: int = 0
    agents: int = 0
    slots_total: int = 0
    slots_idle: int = 0
    slots_processing: int = 0
    dead_letters: int = 0
    counters: dict[str, int] = {}


class PoolList(Struct, frozen=True):
    """`worker`: a worker runs and looks after what dead agents and balancers leave."""

    pools: list[Pool]
    worker: bool = True


class Request(Struct, frozen=True, kw_only=True):
    """A request that has not ended. `position` is how many are served before it, None once an agent has it."""

    id: str
    state: str
    request_class: str = field(name="class", default="normal")
    served_as: str | None = None
    tenant: str = ""
    model: str | None = None
    position: int | None = None
    agent: str | None = None
    agent_name: str | None = None
    waited_ms: int = 0
    running_ms: int | None = None
    prompt_tokens: int = 0
    tokens: int | None = None
    is_cancelling: bool = False


class RequestPage(Struct, frozen=True):
    requests: list[Request]
    next_cursor: str | None = None


class RequestEvent(Struct, frozen=True):
    """`after_ms` is since the request was accepted; `times` how often, of which this is the last."""

    event: str
    after_ms: int = 0
    times: int = 1


class RequestError(Struct, frozen=True):
    code: str
    message: str = ""


class Timeline(Struct, frozen=True, kw_only=True):
    """One request, until ten minutes after its end. `opens` is how often an agent has begun it, `deaths` how many of
    these were lost."""

    id: str
    state: str
    request_class: str = field(name="class", default="normal")
    served_as: str = ""
    tenant: str = ""
    model: str | None = None
    position: int | None = None
    estimated_wait_ms: int | None = None
    agent: str | None = None
    agent_name: str | None = None
    opens: int = 0
    deaths: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    tokens: int = 0
    finish_reason: str | None = None
    error: RequestError | None = None
    is_background: bool = False
    is_cancelling: bool = False
    events: list[RequestEvent] = []


class AgentOrder(Struct, frozen=True):
    """What an agent was told; how many of its requests have not ended yet."""

    id: str
    order: str
    requests_running: int = 0


class CancelAnswer(Struct, frozen=True):
    """`cancelled`, `cancelling` (its agent stops within a step) or `ended`."""

    id: str
    outcome: str
