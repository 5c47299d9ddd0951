"""Which request an agent takes, and which agent a request is offered to (life of a request, steps 2 and 4).

Late binding with cache affinity: of what waits, an agent takes the request whose beginning its KV cache holds; a
request of which another agent holds more is left to that agent for as long as computing the difference would take, the
shorter the more idle the agent that asks is (delay scheduling, Zaharia et al., EuroSys'10, with the delay that each
request is worth). `docs/routing.md` has what each costs and brings.

`store/lua/choice.lua` and `place.lua` take the same decisions inside Redis; a test holds them together. So that they
agree to the last bit, times are whole milliseconds, positions whole tokens, and ties are settled by id in byte order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import chain, compress, islice
from typing import Literal

from msgspec import Struct

CLASSES = ("interactive", "normal", "batch")
RequestClass = Literal["interactive", "normal", "batch"]

WINDOW = 64
MATCH_DIVISOR = 10  # a match counts from a tenth of the prompt; below, all agents share the system prompt's first lines
OLDEST_EVERY = 8
NEAR_LOOKS = 8  # entries of a prompt, from the deepest that anybody holds: usually that one can be restored
TENANT_QUANTUM = 1_024  # about three short requests: what a match may cost another tenant
PROMOTE_LOOKS_AT = 16
PROMOTIONS: tuple[tuple[RequestClass, RequestClass, int], ...] = (
    ("normal", "interactive", 30_000),
    ("batch", "normal", 120_000),
)
"""From, to, after so many ms."""
UNMEASURED_PREFILL_TOKENS_PER_S = 500.0

Holders = Mapping[bytes, Collection[str]]
"""Prefix hash -> the live agents whose KV cache holds it, never an empty collection."""


class Waiting(Struct, frozen=True, kw_only=True):
    """A request in the buffer. `request_class` is the class in whose order it stands now, `score` its place there,
    `chain` its prefix chain as (hash, end in tokens), `num_tokens` its prompt. `is_suspect`: its last agent died before
    it had said anything new, so it is tried alone. `suitor` is the live agent that has reserved it, `avoid` the one
    that had to give it up for want of room and may not take it back yet. `since_ms` is when it was promoted to
    `request_class`, None when it was not."""

    id: str
    request_class: RequestClass
    score: float
    accepted_ms: int
    chain: tuple[tuple[bytes, int], ...]
    num_tokens: int
    is_suspect: bool = False
    suitor: str | None = None
    avoid: str | None = None
    tenant: str = ""
    since_ms: int | None = None


class AgentView(Struct, frozen=True, kw_only=True):
    """An agent that asks. `held` are the prefix hashes in its KV cache, `num_claims` the tickets it has ever been
    given, `reserved` the waiting request whose suitor it is; of its `num_slots`, `num_free` are free. `near` are the
    prefix hashes that it could restore, from other agents or the shared store, at `restore_tokens_per_s` (0: none)."""

    id: str
    num_free: int
    held: Container[bytes]
    prefill_tokens_per_s: float
    num_claims: int
    lane_is_empty: bool
    reserved: str | None = None
    num_slots: int = 1
    near: Container[bytes] = ()
    restore_tokens_per_s: float = 0.0


class Rules(Struct, frozen=True, kw_only=True):
    """How far affinity goes. The defaults are what the scripts do; `tests/bench/routing.py` shows what they bring
    beside the rules of the first design, which had none of them.

    `nets_own_match`: a match here shortens the time that a request is left to a longer one elsewhere, instead of ending
    it. `oldest_must_be_due`: every eighth claim takes the oldest that is not left to a holder. `idle_are_impatient`: an
    agent leaves requests to their holders for a shorter time the more of its slots are free. `class_by_class`: no match
    moves a request before one of a higher class. `tenant_quantum`: nor before another tenant's by more than this many
    tokens of score."""

    nets_own_match: bool = True
    oldest_must_be_due: bool = True
    idle_are_impatient: bool = True
    class_by_class: bool = True
    tenant_quantum: float | None = TENANT_QUANTUM


RULES = Rules()


class Why(StrEnum):
    RESERVED = "reserved"
    OLDEST = "oldest"
    MATCH = "match"
    COLD = "cold"
    STOLEN = "stolen"


class Give(Struct, frozen=True):
    """Put this request into the agent's lane."""

    request_id: str
    why: Why


class Reserve(Struct, frozen=True):
    """Make the agent this request's suitor and give it nothing before its lane is empty."""

    request_id: str


class Nothing(Struct, frozen=True):
    """Nothing for this agent now. `hint_ms`, at least 1: until it may steal a request of the window; None: never."""

    hint_ms: int | None


Choice = Give | Reserve | Nothing


class Promotion(Struct, frozen=True):
    """Move a waiting request into this class's order, charged there as a newcomer of its tenant (`fairness.charge`).
    The clock of the class it leaves goes on as if it had been given away."""

    request_id: str
    request_class: RequestClass


def is_long_enough(num_matched: int, num_tokens: int) -> bool:
    """Whether a match of this length counts: at least a tenth of the prompt, and not nothing."""
    return num_matched > 0 and num_matched * MATCH_DIVISOR >= num_tokens


def match(request: Waiting, held: Container[bytes]) -> int:
    """Tokens of the longest beginning of the request in `held`, 0 when it does not count. `held` are the hashes of one
    agent, or `Holders` for the best of all live agents."""
    for digest, end in reversed(request.chain):
        if not is_long_enough(end, request.num_tokens):
            return 0
        if digest in held:
            return end
    return 0


def promotions(
    orders: Mapping[RequestClass, Iterable[Waiting]],
    promoted: Mapping[tuple[RequestClass, str], str],
    now_ms: int,
) -> list[Promotion]:
    """Who moves up a class before a claim, each at most one class. `orders` as for `window`; `promoted` are the
    requests that wait where they were promoted to, by class and tenant.

    Promotion is for a class that a higher one starves, and must not starve others itself. So it takes a class in its
    own order, from the head to the first that has not been there for long enough (and looks at `PROMOTE_LOOKS_AT`):
    within the class it changes nothing. In the higher class what it moves stands as a newcomer of its tenant, and a
    tenant has one there at a time: other tenants wait for their share, the tenant's own for one request."""
    moved: list[Promotion] = []
    taken = dict(promoted)
    for source, target, after_ms in PROMOTIONS:
        for request in islice(orders.get(source, ()), PROMOTE_LOOKS_AT):
            since_ms = request.accepted_ms if request.since_ms is None else request.since_ms
            if now_ms - since_ms < after_ms:
                break
            if (target, request.tenant) not in taken:
                taken[target, request.tenant] = request.id
                if taken.get((source, request.tenant)) == request.id:
                    del taken[source, request.tenant]
                moved.append(Promotion(request.id, target))
    return moved


def window(orders: Mapping[RequestClass, Iterable[Waiting]]) -> list[Waiting]:
    """What one claim looks at: the first `WINDOW` waiting, classes in order, each given in its order of (score, id)."""
    return list(islice(chain.from_iterable(orders.get(name, ()) for name in CLASSES), WINDOW))


def steal_after_ms(num_ms: float, patience: float = 1.0) -> int:
    """The least whole wait that is longer than `patience` times so many ms."""
    return math.floor(num_ms * patience) + 1


def prefill_ms(
    num_tokens: int, start: int, near: int, prefill_tokens_per_s: float, restore_tokens_per_s: float
) -> float:
    """How long it takes to have `num_tokens` where `start` are: those up to `near` are restored."""
    speed = prefill_tokens_per_s if prefill_tokens_per_s > 0 else UNMEASURED_PREFILL_TOKENS_PER_S
    if near <= start or restore_tokens_per_s <= speed:
        return (num_tokens - start) * 1000 / speed
    return (num_tokens - near) * 1000 / speed + (near - start) * 1000 / restore_tokens_per_s


def choose(
    agent: AgentView,
    candidates: Iterable[Waiting],
    oldest: Iterable[Waiting],
    holders: Holders,
    now_ms: int,
    rules: Rules = RULES,
) -> Choice:
    """What one claim of one slot does. `candidates` is the `window` after promotion, `oldest` all that wait by
    (accepted_ms, id).

    1. A request that this agent has reserved, or nothing, until its lane is empty.
    2. At every eighth claim the oldest of all (of the first `WINDOW` that it may take) that is due, so that nothing
       starves.
    3. Class by class, and in each first what stands at most `TENANT_QUANTUM` behind the first of another tenant: of
       what is due the longest match held by this agent; else the first that no live agent holds; else the first; else
       nothing, with the time until something is due.

    A request is due once it has waited for longer than this agent needs for what its holders have more of it, times
    the agent's patience: the part of its slots that would be busy with it. It restores what is `near` if that is faster
    than computing it. What nobody holds more of is due at once.

    A suspect goes only into an empty lane; an agent with other work reserves it instead.
    What another agent has reserved, or this one had to give up, is passed over."""
    if agent.num_free <= 0:
        return Nothing(None)
    if agent.reserved is not None:
        return Give(agent.reserved, Why.RESERVED) if agent.lane_is_empty else Reserve(agent.reserved)
    look = _Look(agent, holders, now_ms, rules)
    choice = look.at_oldest(oldest) or look.at_window([request for request in candidates if look.may_take(request)])
    if isinstance(choice, Nothing):
        return choice
    request, why = choice
    if request.is_suspect and not agent.lane_is_empty:
        return Reserve(request.id)
    return Give(request.id, why)


class _Look:
    """One agent looking at what waits, at one moment."""

    def __init__(self, agent: AgentView, holders: Holders, now_ms: int, rules: Rules) -> None:
        self._agent = agent
        self._holders = holders
        self._now_ms = now_ms
        self._rules = rules
        num_busy = max(agent.num_slots - agent.num_free, 0)
        self._patience = (num_busy + 1) / agent.num_slots if rules.idle_are_impatient else 1.0

    def may_take(self, request: Waiting) -> bool:
        return request.suitor in (None, self._agent.id) and request.avoid != self._agent.id

    def at_oldest(self, oldest: Iterable[Waiting]) -> tuple[Waiting, Why] | None:
        if (self._agent.num_claims + 1) % OLDEST_EVERY != 0:
            return None
        for request in islice(oldest, WINDOW):
            if self.may_take(request) and (not self._rules.oldest_must_be_due or self._left_ms(request)[0] <= 0):
                return request, Why.OLDEST
        return None

    def at_window(self, requests: list[Waiting]) -> tuple[Waiting, Why] | Nothing:
        hint_ms: int | None = None
        for group in _groups(requests, self._rules):
            choice = self._at_group(group)
            if not isinstance(choice, Nothing):
                return choice
            if choice.hint_ms is not None:
                hint_ms = choice.hint_ms if hint_ms is None else min(hint_ms, choice.hint_ms)
        return Nothing(hint_ms)

    def _at_group(self, requests: list[Waiting]) -> tuple[Waiting, Why] | Nothing:
        longest = 0
        matched: Waiting | None = None
        cold: Waiting | None = None
        stolen: Waiting | None = None
        hint_ms: int | None = None
        for request in requests:
            left_ms, own, best = self._left_ms(request)
            if left_ms > 0:
                hint_ms = left_ms if hint_ms is None else min(hint_ms, left_ms)
            elif own > 0:
                if own > longest:
                    longest, matched = own, request
            elif best == 0:
                cold = cold or request
            else:
                stolen = stolen or request
        if matched is not None:
            return matched, Why.MATCH
        if cold is not None:
            return cold, Why.COLD
        return Nothing(hint_ms) if stolen is None else (stolen, Why.STOLEN)

    def _left_ms(self, request: Waiting) -> tuple[int, int, int]:
        """How long this agent leaves the request to its holders, 0 or less when no longer; the match here, and the
        longest anywhere, in tokens."""
        own = match(request, self._agent.held)
        best = max(own, match(request, self._holders))
        num_saved = best - own if self._rules.nets_own_match or own == 0 else 0
        if num_saved == 0:
            return 0, own, best
        agent = self._agent
        held = [entry for entry in request.chain if entry[1] <= best][-NEAR_LOOKS:]
        near = max((end for digest, end in held if digest in agent.near), default=0)
        num_ms = prefill_ms(best, best - num_saved, near, agent.prefill_tokens_per_s, agent.restore_tokens_per_s)
        return request.accepted_ms + steal_after_ms(num_ms, self._patience) - self._now_ms, own, best


def _groups(requests: list[Waiting], rules: Rules) -> Iterator[list[Waiting]]:
    """What is preferred before any match is compared: a group is looked at only when none before it gives anything."""
    if not rules.class_by_class:
        yield from _by_quantum(requests, rules.tenant_quantum)
        return
    for name in CLASSES:
        yield from _by_quantum([request for request in requests if request.request_class == name], rules.tenant_quantum)


def _by_quantum(requests: list[Waiting], quantum: float | None) -> Iterator[list[Waiting]]:
    """Those that stand at most `quantum` behind the first of another tenant, then the others (the deficit of
    locality-aware fair queueing, Cao et al. 2025, in terms of scores)."""
    other = next((request for request in requests if request.tenant != requests[0].tenant), None)
    if quantum is None or other is None:
        yield requests
        return
    first = requests[0]
    is_near = [
        request.score <= (other if request.tenant == first.tenant else first).score + quantum for request in requests
    ]
    yield list(compress(requests, is_near))
    yield [request for request, near in zip(requests, is_near, strict=True) if not near]


class Placement(StrEnum):
    """Why an agent was chosen, or why none was."""

    HOLDER = "holder"
    FREEST = "freest"
    HOLDER_IS_BUSY = "holder_is_busy"
    NO_FREE_SLOT = "no_free_slot"


class Target(Struct, frozen=True):
    """The agent that a new request is offered to; `agent_id` None: it waits in the buffer."""

    placement: Placement
    agent_id: str | None = None


def choose_agent(
    request: Waiting, holders: Holders, free: Mapping[str, int], *, hint: str | None = None, draw: int = 0
) -> Target:
    """The agent to offer a new request to: the first live holder with a free slot, from the longest match down; for a
    request that no live agent holds, the freest. `free` maps live, ready agents to their free slots.

    Ties go to the most free slots, then by `hint` (`prompt_cache_key`, a session header: the same agent for the same
    hint while the agents stay), then to the lowest id for holders and to `draw` (any whole number) for cold ones."""
    is_held = False
    for digest, end in reversed(request.chain):
        if not is_long_enough(end, request.num_tokens):
            break
        held_by = holders.get(digest, ())
        is_held = is_held or bool(held_by)
        ties = _freest(held_by, free)
        if ties:
            return Target(Placement.HOLDER, ties[0] if hint is None else _rendezvous(ties, hint))
    if is_held:
        return Target(Placement.HOLDER_IS_BUSY)
    agent_id = freest(free, hint=hint, draw=draw)
    return Target(Placement.NO_FREE_SLOT if agent_id is None else Placement.FREEST, agent_id)


def freest(free: Mapping[str, int], *, hint: str | None = None, draw: int = 0) -> str | None:
    """The agent with the most free slots, ties by `hint` or else `draw`; None when no slot is free."""
    ties = _freest(free, free)
    if not ties:
        return None
    return ties[draw % len(ties)] if hint is None else _rendezvous(ties, hint)


def _freest(agent_ids: Iterable[str], free: Mapping[str, int]) -> list[str]:
    """Those with the most free slots, by id; none when none has any."""
    most = 0
    ties: list[str] = []
    for agent_id in agent_ids:
        num_free = free.get(agent_id, 0)
        if num_free > most:
            most, ties = num_free, [agent_id]
        elif num_free == most and most > 0:
            ties.append(agent_id)
    return sorted(ties)


def _rendezvous(agent_ids: Iterable[str], hint: str) -> str:
    """The agent whose SHA-1 with the hint is highest (Thaler and Ravishankar, 1998): `redis.sha1hex` in Lua."""
    return max(agent_ids, key=lambda agent_id: hashlib.sha1(_encode(f"{hint}\0{agent_id}")).hexdigest())


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
