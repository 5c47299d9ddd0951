"""A pure Python model of a pool (design, the life of a request): what each script must answer and change.

The model does not choose who gets what: it sees it, and checks that it was allowed (`observe`). All else it foretells.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from queue_seen import Seen, SeenRequest

from paddler.store.results import Cancelled, Disposition, Order, Ordered, Outcome, Repair

WINDOW = 64
MAX_DEATHS = 3
PROMOTED = {"normal": ("interactive", 30_000), "batch": ("normal", 120_000)}
ENDED = ("done", "failed", "cancelled")


@dataclass
class Request:
    id: str
    request_class: str
    tenant: str
    accepted: int
    deadline: int
    hashes: frozenset[str]
    is_background: bool
    watchers: set[str]
    queue: str = ""
    since: int = 0
    state: str = "waiting"
    agent: str | None = None
    attempt: int = 0
    opened: int | None = None
    deaths: int = 0
    fruitless: int = 0
    opened_at: int = 0
    is_stopping: bool = False
    journal: bytes = b""

    @property
    def side(self) -> str:
        return "background" if self.is_background or self.request_class == "batch" else "foreground"

    @property
    def is_ended(self) -> bool:
        return self.state in ENDED


@dataclass
class Agent:
    id: str
    slots: int
    expiry: int
    is_leaving: bool = False
    solo: str | None = None
    process: str = ""
    wish: str = ""


@dataclass
class QueueModel:
    now: int
    requests: dict[str, Request] = field(default_factory=dict[str, Request])
    agents: dict[str, Agent] = field(default_factory=dict[str, Agent])
    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDED, 0))
    ever_held: set[str] = field(default_factory=set[str])
    reserving: set[str] = field(default_factory=set[str])
    dead: list[str] = field(default_factory=list[str])
    wishes: dict[str, str] = field(default_factory=dict[str, str])

    # What the model knows.

    def waiting(self) -> list[Request]:
        return [request for request in self.requests.values() if request.state == "waiting"]

    def lane(self, agent_id: str) -> list[Request]:
        busy = ("assigned", "running")
        return [one for one in self.requests.values() if one.agent == agent_id and one.state in busy]

    def is_leased(self, agent_id: str) -> bool:
        return agent_id in self.agents and self.agents[agent_id].expiry > self.now

    def num_free(self, agent_id: str) -> int:
        agent = self.agents[agent_id]
        if not self.is_leased(agent_id) or agent.is_leaving or agent.wish or agent.solo or agent_id in self.reserving:
            return 0
        return max(agent.slots - len(self.lane(agent_id)), 0)

    # What the scripts do.

    def would_be_full(self, side: str, max_waiting: int) -> bool:
        num = sum(one.side == side for one in self.waiting())
        return num >= max_waiting and not any(self.num_free(agent_id) for agent_id in self.agents)

    def submit(self, request: Request) -> None:
        request.queue, request.since = request.request_class, request.accepted
        self.requests[request.id] = request

    def fence(self, agent_id: str, request_id: str, attempt: int) -> Disposition:
        request = self.requests[request_id]
        if (request.agent, request.attempt) != (agent_id, attempt) or request.is_ended:
            return Disposition.FENCED
        return Disposition.CANCELLED if request.is_stopping else Disposition.OK

    def open(self, agent_id: str, request_id: str, attempt: int, frame: bytes) -> Disposition:
        answer = self.fence(agent_id, request_id, attempt)
        request = self.requests[request_id]
        if answer is Disposition.OK and request.opened != attempt:
            request.journal += frame
            request.state, request.opened, request.opened_at = "running", attempt, len(request.journal)
        return answer

    def place(self, request: Request, offset: int, frames: bytes) -> tuple[Disposition, int]:
        """What `emit` and `settle` answer to frames at this offset; the journal is not changed."""
        length = len(request.journal)
        if length == offset:
            return Disposition.OK, offset + len(frames)
        tail = request.journal[offset:]
        if length < offset or (len(tail) < len(frames) and frames.startswith(tail)):
            return Disposition.SHORT, length
        return (Disposition.OK if tail == frames else Disposition.LONG), length

    def emit(self, agent_id: str, request_id: str, attempt: int, offset: int, frames: bytes) -> tuple[Disposition, int]:
        answer = self.fence(agent_id, request_id, attempt)
        if answer is not Disposition.OK:
            return answer, 0
        request = self.requests[request_id]
        answer, length = self.place(request, offset, frames)
        if answer is Disposition.OK and length > len(request.journal):
            if request.state == "assigned":
                request.state, request.opened, request.opened_at = "running", attempt, len(request.journal)
            request.journal += frames
            self._end_solo(agent_id, request_id)
        return answer, length

    def settle(
        self, agent_id: str, request_id: str, attempt: int, offset: int, frames: bytes, outcome: Outcome
    ) -> tuple[Disposition, int]:
        request = self.requests[request_id]
        if (request.agent, request.attempt) != (agent_id, attempt):
            return Disposition.FENCED, 0
        if request.is_ended:
            return Disposition.OK, offset + len(frames)
        answer, length = self.place(request, offset, frames)
        if answer is Disposition.OK:
            self._end(request, outcome.value, frames if length > len(request.journal) else b"")
            self._end_solo(agent_id, request_id)
        return answer, length

    def cancel(self, request_id: str, frame: bytes, leaving_inbox: str) -> Cancelled:
        request = self.requests[request_id]
        if request.is_ended:
            return Cancelled.ENDED
        if leaving_inbox:
            request.watchers.discard(leaving_inbox)
            if request.is_background or request.watchers:
                return Cancelled.FOLLOWED
        if request.state == "running":
            request.is_stopping = True
            return Cancelled.CANCELLING
        if request.state == "assigned":
            assert request.agent
            self._end_solo(request.agent, request_id)
            request.attempt += 1
        self._end(request, "cancelled", frame)
        return Cancelled.CANCELLED

    def expire(self, frame: bytes) -> int:
        late = [one for one in self.waiting() if one.opened is None and 0 < one.deadline <= self.now]
        for request in late:
            self._end(request, "failed", frame)
        return len(late)

    def register(self, agent: Agent) -> bool:
        """False: its process was removed."""
        agent.wish = self.wishes.get(agent.process, "")
        if agent.wish == "remove":
            return False
        self.agents[agent.id] = agent
        return True

    def order(self, agent_id: str, order: Order) -> Ordered | None:
        agent = self.agents.get(agent_id)
        if agent is None:
            return None
        if order is not Order.REMOVE and (agent.is_leaving or agent.wish == "remove"):
            return Ordered(False)
        if order is Order.UNDRAIN:
            agent.wish = ""
            self.wishes.pop(agent.process, None)
            return Ordered(True, len(self.lane(agent_id)))
        agent.wish = self.wishes[agent.process] = order.value
        return Ordered(True, self._take_back(agent_id))

    def drain(self, agent_id: str) -> int:
        if agent_id not in self.agents:
            return 0
        self.agents[agent_id].is_leaving = True
        return self._take_back(agent_id)

    def _take_back(self, agent_id: str) -> int:
        self.reserving.discard(agent_id)
        for request in self.lane(agent_id):
            if request.state == "assigned":
                self._end_solo(agent_id, request.id)
                self._put_back(request)
        return len(self.lane(agent_id))

    def reap(
        self, agent_id: str, *, is_leaving: bool, dead_frame: bytes, cancel_frame: bytes
    ) -> tuple[int, int] | None:
        """Tickets returned and requests failed; None when the agent lives."""
        if self.is_leased(agent_id) and not is_leaving:
            return None
        num_returned = num_failed = 0
        for request in self.lane(agent_id):
            if not is_leaving and request.opened == request.attempt:
                request.deaths += 1
                is_fruitful = len(request.journal) > request.opened_at
                request.fruitless = 0 if is_fruitful else request.fruitless + 1
            if request.is_stopping or request.fruitless >= MAX_DEATHS or request.deaths >= 3 * MAX_DEATHS:
                request.attempt += 1
                if request.is_stopping:
                    self._end(request, "cancelled", cancel_frame)
                else:
                    self._end(request, "failed", dead_frame)
                    self.dead.append(request.id)
                    num_failed += 1
            else:
                self._put_back(request)
                num_returned += 1
        self.agents.pop(agent_id, None)
        self.reserving.discard(agent_id)
        return num_returned, num_failed

    def release(self, agent_id: str, request_id: str, attempt: int) -> Disposition:
        answer = self.fence(agent_id, request_id, attempt)
        if answer is Disposition.OK:
            self._end_solo(agent_id, request_id)
            self._put_back(self.requests[request_id])
        return answer

    def repair(self, request_id: str, length: int, frames: bytes) -> tuple[Repair, int]:
        request = self.requests[request_id]
        if request.is_ended or length != len(request.journal):
            return Repair.ENDED if request.is_ended else Repair.MOVED, len(request.journal)
        request.journal += frames
        request.deadline = 0
        return Repair.OK, len(request.journal)

    def _end(self, request: Request, state: str, frames: bytes) -> None:
        assert not request.is_ended
        request.state = state
        request.journal += frames
        self.ends[state] += 1

    def _put_back(self, request: Request) -> None:
        request.state, request.agent = "waiting", None
        request.attempt += 1

    def _end_solo(self, agent_id: str, request_id: str) -> None:
        agent = self.agents.get(agent_id)
        if agent and agent.solo == request_id:
            agent.solo = None

    # What the scripts chose.

    def observe(self, seen: Seen) -> None:
        """Take over who was given what, and check that nothing else differs."""
        self.reserving = {agent_id for agent_id, agent in seen.agents.items() if agent.reserved}
        for request in self.requests.values():
            found = seen.requests[request.id]
            while found.queue != request.queue:
                request.queue, after = PROMOTED[request.queue]
                assert self.now - request.since >= after, f"{request.id} was promoted too early"
                request.since = self.now
            if request.state == "waiting" and found.state == "assigned":
                self._give(request, found)
            expected = (request.state, request.attempt, request.deaths, request.fruitless, request.journal)
            assert (found.state, found.attempt, found.deaths, found.fruitless, found.journal) == expected, request
            if not request.is_ended:
                assert (found.agent or None) == request.agent, request
                assert found.is_stopping == request.is_stopping, request
                assert found.watchers == request.watchers, request

    def _give(self, request: Request, found: SeenRequest) -> None:
        assert self.is_leased(found.agent), "given to an agent whose lease is over"
        agent = self.agents[found.agent]
        assert not agent.is_leaving, "given to a leaving agent"
        assert not agent.wish, "given to a drained agent"
        assert found.avoid != found.agent, "given to the agent that had to give it up"
        request.state, request.agent = "assigned", found.agent
        request.attempt += 1
        if request.fruitless > 0:
            agent.solo = request.id
