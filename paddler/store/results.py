"""What the scripts answer."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Submission(Struct, frozen=True, kw_only=True):
    """One request as `submit` takes it. Times are ms, 0 meaning none; token counts are estimates.

    `chain` is a packed prefix chain (`routing.prefix`); `weight` and `tenant_max_waiting` are the tenant's;
    `rate` is what the fleet computes, tokens/s, 0 when nobody has measured it. `fingerprint` tells whether two requests
    with one idempotency key ask for the same; `label` is kept with the request for whoever follows it later; `api_key`
    is the id of the key it is accounted to, empty for none.
    `journal` holds the frames of a request that is submitted again because Redis forgot it (step 12)."""

    request_id: str
    request_class: str
    tenant: str
    payload: bytes
    inbox: str
    start_timeout_ms: int
    max_waiting: int
    chain: bytes = b""
    prompt_tokens: int = 0
    output_tokens: int = 1
    weight: float = 1.0
    hint: str = ""
    tenant_max_waiting: int = 0
    rate: float = 0.0
    max_wait_ms: int = 0
    is_background: bool = False
    idempotency_key: str = ""
    idempotency_ttl_s: int = 86_400
    fingerprint: str = ""
    label: bytes = b""
    journal: bytes = b""
    api_key: str = ""

    @property
    def side(self) -> str:
        """Which bounds hold for it (`keys.SIDES`)."""
        return "background" if self.request_class == "batch" or self.is_background else "foreground"


class Admission(StrEnum):
    """`KNOWN`: this very id was submitted before; `DUPLICATE`: its idempotency key was; `MISMATCH`: but for something
    else. `OUTDATED`: this version may not work on the pool any more."""

    ASSIGNED = "assigned"
    WAITING = "waiting"
    FULL = "full"
    TENANT_FULL = "tenant_full"
    SLOW = "slow"
    KNOWN = "known"
    DUPLICATE = "duplicate"
    MISMATCH = "mismatch"
    OUTDATED = "outdated"


class Submitted(Struct, frozen=True):
    """`number` is the 0-based position within the class; for `FULL` and `TENANT_FULL` how many wait on its side, for
    `SLOW` the estimated wait in ms. `request_id` is the one to follow: for `DUPLICATE` and `MISMATCH` the earlier
    one."""

    admission: Admission
    number: int
    request_id: str


class Entry(StrEnum):
    """Whether a version may work on a pool. `OUTDATED`: newer ones do, which it cannot work beside; `UNREAD`: what is
    there may be older than it reads; `BESIDE`: an agent works there that it cannot work beside; `EARLY`: a balancer or
    worker of its own format has to come first."""

    OK = "ok"
    OUTDATED = "outdated"
    UNREAD = "unread"
    BESIDE = "beside"
    EARLY = "early"


class Entered(Struct, frozen=True):
    """`number` and `oldest` are those of the pool, `who` the version of Paddler that brought the number; for `BESIDE`
    `who` is the agent and `number` its own."""

    entry: Entry
    number: int
    oldest: int
    who: str


class Claimed(Struct, frozen=True):
    """Tickets given, and the ms after which something that waits may be stolen (0: nothing to wait for).

    `num_given` -1: the lease is over."""

    num_given: int
    steal_after_ms: int = 0


class Disposition(StrEnum):
    """What became of a call under a fence."""

    OK = "ok"
    CANCELLED = "cancelled"
    FENCED = "fenced"
    GONE = "gone"
    SHORT = "short"
    LONG = "long"


class OpenedRequest(Struct, frozen=True):
    """`peers`: addresses of agents whose KV cache holds more of its beginning."""

    disposition: Disposition
    payload: bytes = b""
    journal: bytes = b""
    peers: tuple[str, ...] = ()


class Emission(Struct, frozen=True):
    """Frames of one request for `emit`: they start at journal byte `offset`."""

    request_id: str
    attempt: int
    offset: int
    frames: bytes


class Placed(Struct, frozen=True):
    """`length` is the journal's length after the call (for `SHORT` and `LONG`: as found)."""

    disposition: Disposition
    length: int
    steal_after_ms: int = 0


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cancelled(StrEnum):
    CANCELLED = "cancelled"
    CANCELLING = "cancelling"
    FOLLOWED = "followed"
    ENDED = "ended"
    GONE = "gone"


class Renewed(Struct, frozen=True):
    """`is_alive` False: the lease is over, drop all slots and register under a new id. `asked` is what an operator
    wants of the agent: nothing, `drain` or `remove`."""

    is_alive: bool
    cancelled: tuple[str, ...] = ()
    expired_agents: tuple[str, ...] = ()
    steal_after_ms: int = 0
    asked: str = ""


class Order(StrEnum):
    """What an operator tells an agent. `DRAIN`: take no more requests, and stay; `REMOVE`: and end once those that run
    have been handed over."""

    DRAIN = "drain"
    UNDRAIN = "undrain"
    REMOVE = "remove"


class Ordered(Struct, frozen=True):
    """`is_obeyed` False: the agent leaves, and neither drains nor stays. `num_running` requests have not ended yet."""

    is_obeyed: bool
    num_running: int = 0


class Reaped(Struct, frozen=True):
    """`is_alive` True: nothing was done, the agent's lease holds."""

    is_alive: bool
    num_returned: int = 0
    num_failed: int = 0


class Attached(Struct, frozen=True):
    """`state` is None when Redis does not know the request; `journal` starts at the offset asked for."""

    state: str | None
    journal: bytes = b""


class Repair(StrEnum):
    """`MOVED`: the journal has another length by now."""

    OK = "ok"
    MOVED = "moved"
    ENDED = "ended"
    GONE = "gone"


class AuditItem(Struct, frozen=True):
    """Something for `audit` to look at. `where` is `demand`, `demand:batch` or `buffer` (with the stream's entry),
    `request`, `queued` (`entry` is `<side>:<tenant>`), `agent`, or `backlog`."""

    where: str
    id: str = ""
    entry: str = ""


class Mended(Struct, frozen=True):
    """A broken invariant that was put right: the counter it is counted under, and the request or agent it was about."""

    what: str
    id: str


class Requeued(StrEnum):
    """`GONE`: the letter is there, but Redis keeps the request itself no longer."""

    REQUEUED = "requeued"
    GONE = "gone"
    NOT_DEAD = "not_dead"
