"""The objects of the operators' routes beyond Paddler 4's, as types. Times are ms; those that end in `_at_ms` are since
the epoch, by Redis's clock."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from paddler.jobs.timeline import EventName

RequestState = Literal["waiting", "assigned", "running", "done", "failed", "cancelled"]


class RequestObject(Struct, frozen=True, kw_only=True):
    """A request that has not ended. `position` is how many are served before it if no KV cache matters; `served_as` the
    class as which it waits, above its own after promotion. `waited_ms` ends when an agent first begins it.
    `prompt_tokens` are an estimate; `tokens` what its agent told last, up to 10 s ago. `model` as the client called
    it, else the agent's. `opens` is how often an agent has begun it, `deaths` how many of these were lost; `attempt`
    is the fence, which also grows when it comes back."""

    id: str
    pool: str
    state: RequestState
    request_class: str = field(name="class")
    served_as: str | None
    tenant: str
    model: str | None
    position: int | None
    agent: str | None
    agent_name: str | None
    attempt: int
    opens: int
    deaths: int
    accepted_at_ms: float
    waited_ms: int
    running_ms: int | None
    prompt_tokens: int
    tokens: int | None
    is_background: bool
    is_cancelling: bool


class RequestPage(Struct, frozen=True):
    """What agents have been given first, then what waits, in order. `next_cursor` null: there is no more."""

    requests: list[RequestObject]
    next_cursor: str | None


class RequestEvent(Struct, frozen=True):
    """`after_ms` is since it was accepted; `times` how often, of which `at_ms` is the last."""

    event: EventName
    at_ms: float
    after_ms: int
    times: int


class RequestError(Struct, frozen=True):
    code: str
    message: str


class RequestTimeline(Struct, frozen=True, kw_only=True):
    """A request by its id, until ten minutes after its end. `tokens` are those of its output so far; `cached_tokens` of
    the prompt were in the agent's cache. `estimated_wait_ms` is by the pool's measured rate. `opens` and `attempt` as
    in the list."""

    id: str
    pool: str
    state: RequestState
    request_class: str = field(name="class")
    served_as: str
    tenant: str
    model: str | None
    position: int | None
    estimated_wait_ms: int | None
    agent: str | None
    agent_name: str | None
    attempt: int
    opens: int
    deaths: int
    start_deadline_at_ms: float | None
    prompt_tokens: int
    cached_tokens: int | None
    tokens: int
    finish_reason: str | None
    error: RequestError | None
    is_background: bool
    is_cancelling: bool
    now_ms: float
    events: list[RequestEvent]


class CancelAnswer(Struct, frozen=True):
    """`cancelling`: its agent has been told, and stops within a step."""

    id: str
    outcome: Literal["cancelled", "cancelling", "ended"]


class DeadLetterObject(Struct, frozen=True, kw_only=True):
    """A request that lost one agent after the other. `can_requeue` is over a day after it died."""

    id: str
    died_at_ms: int
    deaths: int
    tenant: str
    can_requeue: bool


class DeadLetterPage(Struct, frozen=True):
    """The newest first."""

    dead_letters: list[DeadLetterObject]
    next_cursor: str | None


class DeadLetterAnswer(Struct, frozen=True):
    id: str
    outcome: Literal["requeued", "dropped"]


class PoolObject(Struct, frozen=True, kw_only=True):
    """`waiting` is by the class as which requests are served. `demand` counts unfinished requests, waiting or running,
    but for those of class batch, which are `demand_batch`. `counters` are outcomes since the pool began."""

    name: str
    models: list[str]
    waiting: dict[str, int]
    oldest_wait_ms: int | None
    demand: int
    demand_batch: int
    backlog_tokens: int
    agents: int
    slots_total: int
    slots_idle: int
    slots_processing: int
    dead_letters: int
    counters: dict[str, int]


class PoolList(Struct, frozen=True):
    """By name. `worker`: a worker runs and looks after what dead agents and balancers leave."""

    pools: list[PoolObject]
    worker: bool


class AgentOrder(Struct, frozen=True, kw_only=True):
    """What an agent was told, and how many of its requests have not ended yet."""

    id: str
    pool: str
    order: Literal["drain", "undrain", "remove"]
    requests_running: int


class AgentsByState(Struct, frozen=True, kw_only=True):
    """`lost`: the lease is over; whoever meets it reaps it."""

    ready: int = 0
    loading: int = 0
    failed: int = 0
    draining: int = 0
    drained: int = 0
    leaving: int = 0
    lost: int = 0


class AutoscaleObject(Struct, frozen=True, kw_only=True):
    """`demand` counts unfinished requests, `demand_batch` those of class batch, which are no part of it. Slots are
    those of agents that take requests; `slots_loading` will come. `backlog_seconds` is what the waiting ones take at
    the measured rate, null when nobody has measured. `slots_suggested` is demand / `target_demand_per_slot`, rounded
    up."""

    pool: str
    demand: int
    demand_batch: int
    waiting: int
    waiting_by_class: dict[str, int]
    oldest_wait_ms: int
    slots_total: int
    slots_idle: int
    slots_processing: int
    slots_loading: int
    agents_total: int
    agents: AgentsByState
    backlog_tokens: int
    tokens_per_second: float
    backlog_seconds: float | None
    target_demand_per_slot: float
    slots_suggested: int
