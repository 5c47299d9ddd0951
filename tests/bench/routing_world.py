"""The world that `routing.py` simulates: sessions of several turns, agents with slots and KV caches, an event queue.

What is not modelled: slots of one agent do not slow each other, a cache holds only what is parked (16,384 tokens an
agent, blocks of 64, least recently used goes first), and the network takes no time. Arrivals are open loop, as in a
replayed trace: a turn comes at its time, whether or not the one before has been answered.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from msgspec import Struct

from paddler.routing.prefix import prefix_chain
from paddler.wire.agent import Generate, Message

BLOCK = 64
CACHE_BLOCKS = 16_384 // BLOCK
PREFILL_TOKENS_PER_S = 500.0
DECODE_TOKENS_PER_S = 30.0
NUM_SYSTEM_PROMPTS = 10
SYSTEM_TOKENS = 1_024
BYTES_PER_TOKEN = 4
MEAN_USER_TOKENS = 150
MEAN_OUTPUT_TOKENS = 170
MIN_TOKENS = 8
NUM_TURNS = (4, 12)
MEAN_PAUSE_S = 16.0
BASE_HIT_RATE = 0.24  # so that least loaded has a mean of 6.7 s at load .97, where field-notes 3.2 has 6.65
FLOOD = "flood"


K = TypeVar("K")
V = TypeVar("V")


class Scenario(Struct, frozen=True, kw_only=True):
    """`load` is relative to all slots at full speed; the last `num_slow` agents are four times slower. `note` is empty
    for the plain fleet.

    `num_flood` single requests of one tenant arrive together right after the warm-up, all with the most common system
    prompt; every session is then a tenant of its own, and only the sessions are measured."""

    name: str
    note: str = ""
    load: float
    num_agents: int = 8
    num_slots: int = 4
    num_slow: int = 0
    num_flood: int = 0
    minutes: float = 30.0
    warmup_minutes: float = 3.0


class Turn(Struct, frozen=True):
    """`pause_s` lies between the arrival of this turn and that of the next."""

    user_tokens: int
    output_tokens: int
    pause_s: float


class Session(Struct, frozen=True):
    number: int
    start_s: float
    system: int
    turns: tuple[Turn, ...]
    tenant: str


def sessions(scenario: Scenario, seed: int) -> list[Session]:
    """The same for every policy: when sessions begin (a Poisson process) and what is said in them.

    Conditioned on the amount of work: a plain process varies by 4 % between seeds, more than separates .97 from
    overload."""
    rng = random.Random(f"sessions {seed}")
    weights = [rank**-1.3 for rank in range(1, NUM_SYSTEM_PROMPTS + 1)]
    duration_s = 60 * (scenario.warmup_minutes + scenario.minutes)
    budget_s = scenario.load * scenario.num_agents * scenario.num_slots * duration_s
    drawn: list[tuple[Turn, ...]] = []
    while budget_s > 0:
        drawn.append(_turns(rng))
        budget_s -= sum(_slot_s(drawn[-1]))
    starts = sorted(rng.uniform(0, duration_s) for _ in drawn)
    found: list[Session] = []
    for start_s, turns in zip(starts, drawn, strict=True):
        tenant = f"tenant-{len(found)}" if scenario.num_flood else "everyone"
        system = rng.choices(range(NUM_SYSTEM_PROMPTS), weights)[0]
        found.append(Session(len(found), start_s, system, turns, tenant))
    for _ in range(scenario.num_flood):
        found.append(Session(len(found), 60 * scenario.warmup_minutes, 0, _turns(rng)[:1], FLOOD))
    return found


def _turns(rng: random.Random) -> tuple[Turn, ...]:
    return tuple(
        Turn(
            MIN_TOKENS + int(rng.expovariate(1 / (MEAN_USER_TOKENS - MIN_TOKENS))),
            MIN_TOKENS + int(rng.expovariate(1 / (MEAN_OUTPUT_TOKENS - MIN_TOKENS))),
            rng.uniform(0.5, 1.5) * MEAN_PAUSE_S,
        )
        for _ in range(rng.randint(*NUM_TURNS))
    )


def _slot_s(turns: tuple[Turn, ...]) -> Iterator[float]:
    """How long each turn occupies a slot of full speed at the base hit rate."""
    total = SYSTEM_TOKENS
    for turn in turns:
        total += turn.user_tokens
        yield (1 - BASE_HIT_RATE) * total / PREFILL_TOKENS_PER_S + turn.output_tokens / DECODE_TOKENS_PER_S
        total += turn.output_tokens


class Text(Struct, frozen=True):
    """A conversation up to some message: its prefix chain and the full cache blocks it occupies. Blocks of the system
    prompt are shared by all sessions that have it."""

    num_tokens: int
    chain: tuple[tuple[bytes, int], ...]
    blocks: list[int]


class Request:
    """One turn, waiting or running. `prompt` is what is prefilled, `whole` is the same with the answer."""

    def __init__(self, number: int, session: Session, turn: Turn, arrived_s: float, prompt: Text, whole: Text) -> None:
        self.number = number
        self.session = session
        self.turn = turn
        self.arrived_s = arrived_s
        self.prompt = prompt
        self.whole = whole
        self.num_cached = 0
        self.started_s = -1.0
        self.first_token_s = -1.0


class Conversation:
    """One session as it goes on, on a fixed schedule: what was answered is known beforehand, as in a replayed trace."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._num_tokens = 0
        self._messages: list[Message] = []
        self._say("system", SYSTEM_TOKENS, f"system {session.system}")

    def requests(self, first_number: int) -> Iterator[Request]:
        arrives_s = self._session.start_s
        for index, turn in enumerate(self._session.turns):
            prompt = self._say("user", turn.user_tokens, f"{self._session.number} user {index}")
            whole = self._say("assistant", turn.output_tokens, f"{self._session.number} assistant {index}")
            yield Request(first_number + index, self._session, turn, arrives_s, prompt, whole)
            arrives_s += turn.pause_s

    def _say(self, role: str, num_tokens: int, seed: str) -> Text:
        """Text of exactly this many tokens, at 4 serialised bytes a token."""
        num_chars = num_tokens * BYTES_PER_TOKEN - len(role) - 3
        self._messages.append(Message(role, random.Random(seed).randbytes(num_chars // 2 + 1).hex()[:num_chars]))
        self._num_tokens += num_tokens
        chain = prefix_chain(Generate(messages=tuple(self._messages)), pool="default", tenant="bench")
        return Text(self._num_tokens, chain.in_tokens(BYTES_PER_TOKEN), self._blocks())

    def _blocks(self) -> list[int]:
        shared = SYSTEM_TOKENS // BLOCK
        own = range(shared, self._num_tokens // BLOCK)
        first = -1 - self._session.system * shared
        return [first - index for index in range(shared)] + [(self._session.number << 12) + index for index in own]


class Agent:
    def __init__(self, number: int, num_slots: int, speed: float) -> None:
        self.id = f"agent-{number:04}"
        self.number = number
        self.num_slots = num_slots
        self.speed = speed
        self.num_running = 0
        self.queue: deque[Request] = deque()
        self.held: set[bytes] = set()
        self.num_claims = 0
        self.wake_s = float("inf")
        self.cache: OrderedDict[int, list[bytes]] = OrderedDict()

    @property
    def num_free(self) -> int:
        return self.num_slots - self.num_running

    @property
    def load(self) -> int:
        return self.num_running + len(self.queue)

    def num_matched(self, request: Request) -> int:
        matched = 0
        for block in request.prompt.blocks:
            if block not in self.cache:
                break
            matched += BLOCK
        return min(matched, request.prompt.num_tokens - 1)


class Policy(Protocol):
    """Decides who runs what by calling `fleet.start`."""

    def arrived(self, request: Request) -> None: ...

    def freed(self, agent: Agent) -> None: ...

    def finished(self, request: Request) -> None: ...

    def woken(self, agent: Agent) -> None: ...


class Fleet:
    """The agents, their caches' contents as everyone sees them, and the clock."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.rng = random.Random(f"fleet {seed}")
        self.now_s = 0.0
        fast = scenario.num_agents - scenario.num_slow
        self.agents = [
            Agent(number, scenario.num_slots, 1.0 if number < fast else 0.25) for number in range(scenario.num_agents)
        ]
        self.by_id = {agent.id: agent for agent in self.agents}
        self.free = {agent.id: agent.num_slots for agent in self.agents}
        self.holders: dict[bytes, set[str]] = {}
        self.resident: dict[int, set[int]] = {}
        self.requests: list[Request] = []
        self.policy: Policy
        self._sessions = sessions(scenario, seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self._until_s = 60 * (scenario.warmup_minutes + scenario.minutes)

    def run(self, policy: Policy) -> list[Request]:
        """Simulate until all is answered; returns what is measured: the sessions' requests after the warm-up."""
        self.policy = policy
        for session in self._sessions:
            self._at(session.start_s, lambda session=session: self._begin(session))
        while self._events:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
        assert all(request.first_token_s >= 0 for request in self.requests), "a request was never served"
        from_s = 60 * self.scenario.warmup_minutes
        return [request for request in self.requests if request.arrived_s >= from_s and request.session.tenant != FLOOD]

    def start(self, request: Request, agent: Agent) -> None:
        """Prefill and decode in one of the agent's free slots."""
        assert agent.num_free > 0
        agent.num_running += 1
        agent.num_claims += 1
        self.free[agent.id] -= 1
        request.started_s = self.now_s
        request.num_cached = agent.num_matched(request)
        for block in reversed(request.prompt.blocks[: request.num_cached // BLOCK]):
            agent.cache.move_to_end(block)
        prefill_s = (request.prompt.num_tokens - request.num_cached) / (PREFILL_TOKENS_PER_S * agent.speed)
        decode_s = request.turn.output_tokens / (DECODE_TOKENS_PER_S * agent.speed)
        request.first_token_s = self.now_s + prefill_s
        self._at(request.first_token_s, lambda: self._keep(request.prompt, agent))
        self._at(request.first_token_s + decode_s, lambda: self._finish(request, agent))

    def wake(self, agent: Agent, at_s: float) -> None:
        """Call `policy.woken` at this time, instead of any earlier arrangement with this agent."""
        agent.wake_s = at_s
        self._at(at_s, lambda: self.policy.woken(agent) if agent.wake_s == at_s else None)

    def _at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._ticket), event))

    def _begin(self, session: Session) -> None:
        for request in Conversation(session).requests(len(self.requests)):
            if request.arrived_s < self._until_s:
                self.requests.append(request)
                self._at(request.arrived_s, lambda request=request: self.policy.arrived(request))

    def _finish(self, request: Request, agent: Agent) -> None:
        self._keep(request.whole, agent)
        agent.num_running -= 1
        self.free[agent.id] += 1
        self.policy.finished(request)
        self.policy.freed(agent)

    def _keep(self, text: Text, agent: Agent) -> None:
        """Park a text in an agent's cache; ends go before beginnings when room is needed."""
        entries: dict[int, list[bytes]] = {}
        for digest, end in text.chain:
            entries.setdefault(max(end - 1, 0) // BLOCK, []).append(digest)
        for index in range(len(text.blocks) - 1, -1, -1):
            block = text.blocks[index]
            if block in agent.cache:
                agent.cache.move_to_end(block)
            else:
                self._fill(agent, block, entries.get(index, []))
        while len(agent.cache) > CACHE_BLOCKS:
            self._evict(agent)

    def _fill(self, agent: Agent, block: int, entries: list[bytes]) -> None:
        agent.cache[block] = entries
        agent.held.update(entries)
        self.resident.setdefault(block, set()).add(agent.number)
        for digest in entries:
            self.holders.setdefault(digest, set()).add(agent.id)

    def _evict(self, agent: Agent) -> None:
        block, entries = agent.cache.popitem(last=False)
        agent.held.difference_update(entries)
        _forget(self.resident, block, agent.number)
        for digest in entries:
            _forget(self.holders, digest, agent.id)


def _forget(index: dict[K, set[V]], key: K, member: V) -> None:
    index[key].discard(member)
    if not index[key]:
        del index[key]
