"""The policies that `routing.py` compares: Paddler's own from `paddler.routing`, and the field's.

The field's see every cache exactly and at once, down to the block of 64 tokens; ours sees the entries of the prefix
chain, as it does in production.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

import xxhash

from paddler.routing import fairness, policy
from paddler.routing.policy import AgentView, Give, Nothing, RequestClass, Waiting
from tests.bench.routing_world import BLOCK, PREFILL_TOKENS_PER_S, Agent, Fleet, Policy, Request

Pick = Callable[[Fleet, Request], Agent]


class Push:
    """A router in front of agents that each have a queue of their own: `pick` decides once, on arrival."""

    def __init__(self, fleet: Fleet, pick: Pick) -> None:
        self._fleet = fleet
        self._pick = pick

    def arrived(self, request: Request) -> None:
        agent = self._pick(self._fleet, request)
        agent.queue.append(request)
        self.freed(agent)

    def freed(self, agent: Agent) -> None:
        while agent.queue and agent.num_free > 0:
            self._fleet.start(agent.queue.popleft(), agent)

    def finished(self, request: Request) -> None: ...

    def woken(self, agent: Agent) -> None: ...


class BlindPull:
    """One queue, first in first out; whoever has a free slot takes the head."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._queue: deque[Request] = deque()

    def arrived(self, request: Request) -> None:
        self._queue.append(request)
        self.freed(least_loaded(self._fleet, request))

    def freed(self, agent: Agent) -> None:
        while self._queue and agent.num_free > 0:
            self._fleet.start(self._queue.popleft(), agent)

    def finished(self, request: Request) -> None: ...

    def woken(self, agent: Agent) -> None: ...


def _least(fleet: Fleet, agents: Iterable[Agent]) -> Agent:
    """The least loaded, ties at random."""
    candidates = list(agents)
    least = min(agent.load for agent in candidates)
    return fleet.rng.choice([agent for agent in candidates if agent.load == least])


def least_loaded(fleet: Fleet, request: Request) -> Agent:
    return _least(fleet, fleet.agents)


def round_robin() -> Pick:
    turn = 0

    def pick(fleet: Fleet, request: Request) -> Agent:
        nonlocal turn
        turn += 1
        return fleet.agents[turn % len(fleet.agents)]

    return pick


def bounded_hashing(factor: float) -> Pick:
    """Consistent hashing with bounded loads (KubeAI): key the session's first user message, 256 places an agent."""
    ring: list[tuple[int, int]] = []

    def pick(fleet: Fleet, request: Request) -> Agent:
        if not ring:
            ring.extend(
                (xxhash.xxh3_64_intdigest(f"{agent.id} {place}".encode()), agent.number)
                for agent in fleet.agents
                for place in range(256)
            )
            ring.sort()
        bound = math.ceil(factor * (sum(agent.load for agent in fleet.agents) + 1) / len(fleet.agents))
        key = xxhash.xxh3_64_intdigest(b"session %d" % request.session.number)
        place = bisect.bisect(ring, (key, 0))
        while True:
            agent = fleet.agents[ring[place % len(ring)][1]]
            if agent.load < bound:
                return agent
            place += 1

    return pick


def matches(fleet: Fleet, request: Request) -> dict[int, int]:
    """Agent number -> tokens of the request in its cache, for those that have any."""
    found: dict[int, int] = {}
    alive: set[int] | None = None
    for index, block in enumerate(request.prompt.blocks):
        here = fleet.resident.get(block, set())
        alive = set(here) if alive is None else alive & here
        if not alive:
            break
        for number in alive:
            found[number] = (index + 1) * BLOCK
    return found


def cache_aware(absolute: int, relative: float, threshold: float) -> Pick:
    """SGLang's router and LocalAI: the longest match while the fleet is balanced, else the least loaded."""

    def pick(fleet: Fleet, request: Request) -> Agent:
        loads = [agent.load for agent in fleet.agents]
        if max(loads) - min(loads) > absolute and max(loads) > relative * min(loads):
            return least_loaded(fleet, request)
        found = matches(fleet, request)
        longest = max(found.values(), default=0)
        if longest / request.prompt.num_tokens <= threshold:
            return least_loaded(fleet, request)
        return _least(fleet, (fleet.agents[number] for number, length in found.items() if length == longest))

    return pick


def score(beta: float) -> Pick:
    """production-stack #1035: matched part of the prompt less beta times the load over the mean."""

    def pick(fleet: Fleet, request: Request) -> Agent:
        found = matches(fleet, request)
        mean = sum(agent.load for agent in fleet.agents) / len(fleet.agents)

        def value(agent: Agent) -> tuple[float, float]:
            matched = found.get(agent.number, 0) / request.prompt.num_tokens
            return matched - beta * (agent.load - mean) / max(1.0, mean), fleet.rng.random()

        return max(fleet.agents, key=value)

    return pick


class Paddler:
    """The production policy around a buffer in memory; where the calls stand is where the scripts make them."""

    def __init__(self, fleet: Fleet, rules: policy.Rules = policy.RULES, *, also_asks_freest: bool = True) -> None:
        self._fleet = fleet
        self._rules = rules
        self._also_asks_freest = also_asks_freest
        self._vtimes: dict[RequestClass, float] = dict.fromkeys(policy.CLASSES, 0.0)
        self._tags: dict[tuple[RequestClass, str], float] = {}
        self._promoted: dict[tuple[RequestClass, str], str] = {}
        self._charged: dict[int, RequestClass] = {}
        self._requests: dict[str, Request] = {}
        self._starts: dict[str, float] = {}
        self._costs: dict[int, int] = {}
        self._waiting: dict[str, Waiting] = {}
        self._orders: dict[RequestClass, list[tuple[float, str]]] = {name: [] for name in policy.CLASSES}
        self.claims: Counter[str] = Counter()

    def arrived(self, request: Request) -> None:
        fleet = self._fleet
        waiting = Waiting(
            id=f"{request.number:09}",
            request_class="normal",
            score=0.0,
            accepted_ms=self._now_ms(),
            chain=request.prompt.chain,
            num_tokens=request.prompt.num_tokens,
            tenant=request.session.tenant,
        )
        cost = fairness.cost(request.prompt.num_tokens, policy.match(waiting, fleet.holders), None)
        self._costs[request.number] = cost
        self._requests[waiting.id] = request
        self._enter(waiting, "normal", None)
        # Whoever is offered the request may have to take others first.
        while waiting.id in self._waiting:
            draw = fleet.rng.getrandbits(30)
            target = policy.choose_agent(waiting, fleet.holders, fleet.free, draw=draw)
            agent_id = target.agent_id or policy.freest(fleet.free, draw=draw)
            if agent_id is None:
                return
            if self._claim(fleet.by_id[agent_id], 1) == 0:
                freest = policy.freest(fleet.free, draw=draw)
                if not self._also_asks_freest or freest in (None, agent_id):
                    return
                if self._claim(fleet.by_id[freest], 1) == 0:
                    return

    def finished(self, request: Request) -> None:
        cost = request.prompt.num_tokens - request.num_cached + request.turn.output_tokens
        place = (self._charged.pop(request.number), request.session.tenant)
        self._tags[place] = fairness.correct(self._tags[place], self._costs.pop(request.number), cost, 1.0)

    def freed(self, agent: Agent) -> None:
        self._claim(agent, agent.num_free)

    def woken(self, agent: Agent) -> None:
        self._claim(agent, agent.num_free)

    def _claim(self, agent: Agent, limit: int) -> int:
        """Fill up to `limit` free slots; when nothing is given, come back when something may be stolen."""
        self._promote()
        for given in range(limit):
            choice = self._choose(agent)
            if not isinstance(choice, Give):
                self._come_back(agent, choice.hint_ms if isinstance(choice, Nothing) else None)
                return given
            self.claims[choice.why] += 1
            request = self._waiting[choice.request_id]
            name = request.request_class
            self._vtimes[name] = fairness.advance(self._vtimes[name], self._starts.pop(request.id))
            self._leave(request)
            self._fleet.start(self._requests.pop(request.id), agent)
        return limit

    def _come_back(self, agent: Agent, hint_ms: int | None) -> None:
        if hint_ms is None:
            agent.wake_s = math.inf
        else:
            patience_ms = min(max(hint_ms * (1 + 0.2 * self._fleet.rng.random()), 1), 500)
            self._fleet.wake(agent, self._fleet.now_s + patience_ms / 1000)

    def _promote(self) -> None:
        for promotion in policy.promotions(self._all_in_order(), self._promoted, self._now_ms()):
            moved = self._waiting[promotion.request_id]
            name = moved.request_class
            self._vtimes[name] = fairness.advance(self._vtimes[name], self._starts[moved.id])
            self._unlist(moved)
            self._enter(moved, promotion.request_class, self._now_ms())
            self._promoted[promotion.request_class, moved.tenant] = moved.id

    def _choose(self, agent: Agent) -> policy.Choice:
        view = AgentView(
            id=agent.id,
            num_slots=agent.num_slots,
            num_free=agent.num_free,
            held=agent.held,
            prefill_tokens_per_s=PREFILL_TOKENS_PER_S * agent.speed,
            num_claims=agent.num_claims,
            lane_is_empty=agent.num_running == 0,
        )
        candidates, oldest = policy.window(self._all_in_order()), self._waiting.values()
        return policy.choose(view, candidates, oldest, self._fleet.holders, self._now_ms(), self._rules)

    def _now_ms(self) -> int:
        return math.floor(self._fleet.now_s * 1000)

    def _all_in_order(self) -> dict[RequestClass, Iterable[Waiting]]:
        return {name: self._in_order(name) for name in policy.CLASSES}

    def _in_order(self, name: RequestClass) -> Iterator[Waiting]:
        return (self._waiting[request_id] for _, request_id in self._orders[name])

    def _enter(self, waiting: Waiting, name: RequestClass, since_ms: int | None) -> None:
        """Kept in `_waiting` by arrival, which is the order of (accepted_ms, id)."""
        number = self._requests[waiting.id].number
        place = (name, waiting.tenant)
        tags = fairness.charge(self._vtimes[name], self._tags.get(place, 0.0), self._costs[number], 1.0)
        self._tags[place], self._starts[waiting.id], self._charged[number] = tags.finish, tags.start, name
        self._waiting[waiting.id] = Waiting(
            id=waiting.id,
            request_class=name,
            score=tags.finish,
            since_ms=since_ms,
            accepted_ms=waiting.accepted_ms,
            chain=waiting.chain,
            num_tokens=waiting.num_tokens,
            tenant=waiting.tenant,
        )
        bisect.insort(self._orders[name], (tags.finish, waiting.id))

    def _leave(self, waiting: Waiting) -> None:
        del self._waiting[waiting.id]
        if self._promoted.get((waiting.request_class, waiting.tenant)) == waiting.id:
            del self._promoted[waiting.request_class, waiting.tenant]
        self._unlist(waiting)

    def _unlist(self, waiting: Waiting) -> None:
        order = self._orders[waiting.request_class]
        del order[bisect.bisect_left(order, (waiting.score, waiting.id))]


DESIGN = policy.Rules(
    nets_own_match=False,
    oldest_must_be_due=False,
    idle_are_impatient=False,
    class_by_class=False,
    tenant_quantum=None,
)
"""The rules of the first design, as a contrast: any match here ends the waiting for a longer one elsewhere."""

POLICIES: dict[str, Callable[[Fleet], Policy]] = {
    "round robin": lambda fleet: Push(fleet, round_robin()),
    "least loaded": lambda fleet: Push(fleet, least_loaded),
    "bounded hashing 1.25": lambda fleet: Push(fleet, bounded_hashing(1.25)),
    "cache aware, SGLang (64, 1.5)": lambda fleet: Push(fleet, cache_aware(64, 1.5, 0.3)),
    "cache aware, LocalAI (2, 1.5)": lambda fleet: Push(fleet, cache_aware(2, 1.5, 0.3)),
    "score, beta 1": lambda fleet: Push(fleet, score(1.0)),
    "blind pull": lambda fleet: BlindPull(fleet),
    "Paddler, design rules": lambda fleet: Paddler(fleet, DESIGN, also_asks_freest=False),
    "Paddler": lambda fleet: Paddler(fleet),
}
