"""The protocol between an agent and whatever generates text for it.

It lives here, not in `workers`, because the scripted engine of `paddler.testing` speaks it too.

An engine is owned by exactly one thread (`workers/agent/engine_thread.py`): every method but the constructor,
`interrupt` and `flush_states` is called there, none of them blocks longer than one step, and none is called
concurrently. A step is bounded (about 250 ms while somebody generates, 1 s at most), because it bounds cancel latency
and the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from paddler.issues import Issue, IssueKind
from paddler.model_facts import ModelFacts
from paddler.tier_stats import TierStats
from paddler.wire.agent import Ability, Payload
from paddler.wire.balancer import FinishReason, TextFormat, TokenLogprob, Usage


class Job(Struct, frozen=True, kw_only=True):
    """One request as given to an engine.

    `resume_ids` are the output tokens that an earlier attempt has already emitted, `resume_text` that part of their
    text that the client already has, in the format `resume_format` (None: content alone): the engine prefills prompt
    plus `resume_ids`, replays stop, penalty and detokeniser state over them, and goes on; the text of a
    `Progress` never repeats what the client has. `max_tokens` and usage count from the first attempt.

    Of an `Embed`, `embedded` are the token counts of the first inputs, those whose vectors an earlier attempt has
    emitted: the engine goes on with the next. `vector_size` is how many numbers each of those vectors has, 0 without
    any; an engine whose model makes others rejects the job.

    `resume_mu` is the `mu` of the last `Progress` that had one (see `wire.balancer.Tokens`).

    When some of the tokens were those of another vocabulary, or of none, `resume_ids` is empty and `resume_text` is to
    be made into tokens of this one; `num_foreign` is how many it took the others, which is what counts for
    `max_tokens`, usage and the random stream.
    """

    request_id: str
    payload: Payload
    resume_ids: tuple[int, ...] = ()
    resume_text: str = ""
    embedded: tuple[int, ...] = ()
    resume_mu: float | None = None
    vector_size: int = 0
    num_foreign: int = 0
    """Tokens behind `resume_text` that were not of the engine's vocabulary."""
    resume_format: TextFormat | None = None
    is_pinned: bool = False
    """Of an agent itself, no client's: what it has computed stays until `unpin`, and it gives way to all others."""
    peers: tuple[str, ...] = ()
    """Addresses of agents whose KV cache may hold what its prompt begins with."""

    @property
    def num_resumed(self) -> int:
        """Output tokens of all earlier attempts."""
        return self.num_foreign or len(self.resume_ids)

    @property
    def resume_text_length(self) -> int:
        return len(self.resume_text)

    @property
    def earlier_usage(self) -> Usage:
        """What earlier attempts have certainly computed."""
        return Usage(prompt_tokens=sum(self.embedded), completion_tokens=self.num_resumed)


class Progress(Struct, frozen=True):
    """Tokens sampled for one job in one step, and the text they released (see `wire.balancer.Tokens`)."""

    request_id: str
    ids: tuple[int, ...]
    text: str
    mu: float | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Embedded(Struct, frozen=True):
    """The next inputs of a job as vectors (see `wire.balancer.Vectors`)."""

    request_id: str
    vectors: tuple[bytes, ...]
    num_tokens: tuple[int, ...]


class Working(Struct, frozen=True):
    """The job goes on, though it has had nothing to show for some seconds."""

    request_id: str


class Done(Struct, frozen=True):
    """The job ended and its slot is free. `text` is text released by the end itself (a flushed hold-back); `answer` is
    that to a question, in the bytes of `wire.answers`: with the end, so that no other attempt finds one without it.
    `stop` is the stop string that ended it, if one did."""

    request_id: str
    reason: FinishReason
    usage: Usage
    text: str = ""
    answer: bytes = b""
    stop: str | None = None


class Rejected(Struct, frozen=True):
    """The job cannot be done and its slot is free: `code`, `status` as in `errors.py`; `param` names the
    request field at fault, if one is. `usage` is what was computed for it, which its tenant is charged."""

    request_id: str
    code: str
    message: str
    status: int
    param: str | None = None
    usage: Usage = Usage()


class Retained(Struct, frozen=True):
    """The KV cache now holds the first `num_tokens` tokens (prompt and output) of this request's sequence.

    Comes when a prompt has been prefilled, after the `Done` or `Preempted` of such a job (what stays parked, or 0), and
    with fewer tokens or 0 when it is evicted, also long after the job has ended. `num_total` is the sequence's length
    then. `num_cached` comes with a prompt that has been prefilled: how many of its tokens were there already; so does
    `format`, if the text is not content alone."""

    request_id: str
    num_tokens: int
    num_total: int
    num_cached: int | None = None
    format: TextFormat | None = None


class Preempted(Struct, frozen=True):
    """The job had to give up its slot for want of KV cache; it goes back to the queue and on from its journal."""

    request_id: str


Event = Progress | Embedded | Working | Done | Rejected | Retained | Preempted


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What the agent publishes about its engine. `context_size` is tokens, shared by all slots and by what stays
    parked: at most `max_parked` ended sequences, 0 when nothing is reused. What it is not able to do it rejects.
    `facts` None: there is no model. `vocabulary` and `weights` as in `wire.balancer.Opened`.

    `slots_usable` and `issues` may change while an engine runs, and are asked for with every renewal of the lease: how
    many slots may be used now (None: all of them), and what keeps it from serving, with the others or all that is
    asked."""

    model: str
    slots_total: int
    context_size: int
    build: str = ""
    bytes_per_token: float = 4.0
    max_parked: int = 0
    abilities: tuple[Ability, ...] = ("generate", "embed")
    facts: ModelFacts | None = None
    vocabulary: str = ""
    weights: str = ""
    metadata: Mapping[str, str] = {}
    """What the model's file says of itself."""
    bos: str = ""
    eos: str = ""
    """What chat templates are told of its vocabulary."""
    slots_usable: int | None = None
    issues: tuple[Issue, ...] = ()


class Saved(Struct, frozen=True):
    """What host memory holds of what has left the KV cache, and how many tokens have come back from there so far."""

    num_bytes: int
    num_tokens: int
    num_restored: int


class Pinned(Struct, frozen=True):
    """How a job that `is_pinned` stands after its end: so many of its first tokens are in the KV cache, so many in host
    memory, and how many bytes both take."""

    request_id: str
    num_resident: int
    num_saved: int
    num_bytes: int


class Engine(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    @property
    def saved(self) -> Saved | None:
        """None: nothing is saved. From any thread."""
        ...

    @property
    def pinned(self) -> tuple[Pinned, ...] | None:
        """None: it keeps nothing that has ended, or cannot say what. From any thread."""
        ...

    @property
    def tiers(self) -> tuple[TierStats, ...]:
        """What lies behind the KV cache, the nearest first; (): nothing. From any thread."""
        ...

    @property
    def num_free_slots(self) -> int: ...

    def start(self, job: Job) -> None:
        """Put a job into a free slot. Raises `NoFreeSlot` when there is none; problems of the job itself
        come as `Rejected` from the next `step`."""
        ...

    def cancel(self, request_id: str) -> None:
        """Stop a job; its `Done(CANCELLED)` comes from the next `step`. Unknown ids are ignored."""
        ...

    def step(self) -> list[Event]:
        """Do one bounded step for all running jobs. Returns at once with [] when there are none."""
        ...

    def unpin(self, request_id: str) -> list[Event]:
        """What this job computed need not stay. Unknown ids are ignored."""
        ...

    def use_template(self, source: str | None) -> None:
        """Make prompts of conversations with this template from the next step on; None: with the model's own. Raises
        `ModelError` for one that does not compile, and goes on with the one it has."""
        ...

    def interrupt(self) -> None:
        """Make a running step return early, if it can; what it would have done is done by the next. For any thread: the
        watchdog's, when a step takes too long."""
        ...

    @property
    def is_saving(self) -> bool:
        """Whether a step would give the tiers something, also without a job."""
        ...

    def save_running(self) -> int:
        """Before it goes: give what is computed of all jobs to the tiers that others read from, too. They go on.
        Returns how many tokens had no room on their way: those are given when it is called again."""
        ...

    def flush_states(self, timeout_s: float) -> bool:
        """Wait until what was given to the tiers is written; whether it is. From any thread, and it may block it."""
        ...

    def close(self) -> None: ...


class KeepsNoStates:
    """What an engine says of states that has none to keep, pin or hand over."""

    @property
    def saved(self) -> None:
        return None

    @property
    def pinned(self) -> None:
        return None

    @property
    def tiers(self) -> tuple[TierStats, ...]:
        return ()

    @property
    def is_saving(self) -> bool:
        return False

    def unpin(self, request_id: str) -> list[Event]:
        del request_id
        return []

    def save_running(self) -> int:
        return 0

    def flush_states(self, timeout_s: float) -> bool:
        del timeout_s
        return True


class NoFreeSlot(RuntimeError):
    """`start` was called on an engine without a free slot: a bug in the caller."""


class ModelError(Exception):
    """An engine cannot be built because its model cannot be served; the message says why, `kind` what sort of issue.
    `path` is the file at fault, empty if that is the model."""

    def __init__(self, message: str, *, kind: IssueKind = "ModelCannotBeLoaded", path: str = "") -> None:
        super().__init__(message)
        self.kind: IssueKind = kind
        self.path = path
