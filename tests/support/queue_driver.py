"""Random actions on a pool through its scripts, each checked against the model; hypothesis and plain random share it.

All arguments are small whole numbers that are taken modulo what there is, so that any sequence of them means something.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from queue_calls import END, LEASE, NOW, USAGE, chain_of, hashes_of
from queue_model import Agent, QueueModel, Request
from queue_policy import read_policy_state
from queue_seen import Seen, check_integrity, look

from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME, MAX_DEATHS, START_TIMEOUT_FRAME
from paddler.store.keys import CLASSES
from paddler.store.results import Admission, Disposition, Emission, Order, Ordered, Outcome, Submission
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Opened, Tokens, encode_frame

TENANTS = ("ann", "bob", "eve")
INBOXES = ("t:inbox:one", "t:inbox:two")
SYSTEM, OTHER = "You are helpful. " * 40, "Translate this. " * 50
PROMPTS = ("", SYSTEM, SYSTEM + "a" * 500, SYSTEM + "a" * 900, SYSTEM + "b" * 600, OTHER, OTHER + "c" * 400, "d" * 300)
PAUSES = (0, 1, 40, 300, 900, 2_000, 4_999, 31_000, 125_000)
MAX_AGENTS, MAX_SLOTS, MAX_WAITING, MAX_ENDED = 5, 6, 16, 8

WEIGHTS = {
    "submit": 16,
    "register": 5,
    "claim": 4,
    "deliver": 20,
    "open": 20,
    "emit": 12,
    "settle": 10,
    "cancel": 4,
    "attach": 2,
    "repair": 1,
    "expire": 2,
    "drain": 1,
    "order": 4,
    "return": 2,
    "leave": 1,
    "reap": 1,
    "die": 2,
    "release": 2,
    "hold": 5,
    "wait": 7,
}

Ticket = tuple[str, str, int]


class QueueDriver:
    def __init__(self, pool: PoolScripts) -> None:
        self.pool = pool
        self.model = QueueModel(NOW)
        self.tickets: list[Ticket] = []  # every one ever delivered, the latest last: zombies use old ones
        self.clocks = (0.0, 0.0, 0.0)
        self.num_agents = self.num_requests = self.num_steps = 0
        self.num_chosen = 0  # tickets that an explicit claim gave, each as the policy says
        self.num_actions: Counter[str] = Counter()
        self.is_repeating = False

    # Actions.

    async def submit(self, who: int, what: int, how: int) -> None:
        if len(self.model.waiting()) >= MAX_WAITING:
            return
        self.num_requests += 1
        prompt = PROMPTS[what % len(PROMPTS)]
        timeout = (0, 0, 0, 0, 0, 500, 5_000)[how % 7]
        max_waiting = (1_000, 1_000, 1_000, 3)[how // 4 % 4]
        inbox = INBOXES[who % 2]
        submission = Submission(
            request_id=f"default.{self.num_requests}",
            request_class=CLASSES[what // len(PROMPTS) % 3],
            tenant=TENANTS[who % 3],
            payload=b"payload",
            inbox=inbox,
            start_timeout_ms=timeout,
            max_waiting=max_waiting,
            chain=chain_of(prompt) if prompt else b"",
            prompt_tokens=len(prompt),
            output_tokens=1 + how % 300,
            weight=(0.5, 1.0, 3.0)[who % 3],
            hint=("", "", "conversation")[how % 3],
            is_background=how % 7 == 0,
        )
        is_full = self.model.would_be_full(submission.side, max_waiting)
        answer = await self._call(lambda: self.pool.submit(submission, now_ms=self.model.now), compare=None)
        assert (answer.admission is Admission.FULL) == is_full, answer
        if not is_full:
            deadline = self.model.now + timeout if timeout else 0
            hashes = frozenset(hashes_of(prompt)) if prompt else frozenset[str]()
            request = Request(
                id=submission.request_id,
                request_class=submission.request_class,
                tenant=submission.tenant,
                accepted=self.model.now,
                deadline=deadline,
                hashes=hashes,
                is_background=submission.is_background,
                watchers={inbox},
            )
            self.model.submit(request)
        seen = await self.check()
        if not is_full:
            was_given = seen.requests[submission.request_id].state == "assigned"
            assert answer.admission is (Admission.ASSIGNED if was_given else Admission.WAITING)

    async def register(self, slots: int, process: str = "") -> None:
        """An agent of a new process, or of one that was here before under another id."""
        if len(self.model.agents) >= MAX_AGENTS:
            return
        self.num_agents += 1
        agent_id = f"a{self.num_agents}"
        num = 1 + slots % 3
        agent = Agent(agent_id, num, self.model.now + LEASE, process=process or f"p{self.num_agents}")
        snapshot = {"slots": num, "state": "ready", "prefill": 1000.0, "process_id": agent.process}
        is_taken = self.model.register(agent)
        answer = await self._call(
            lambda: self.pool.register(
                agent_id, lease_ms=LEASE, model="m", seen_s=1, snapshot=snapshot, now_ms=self.model.now
            ),
            compare=None,
        )
        assert (answer.num_given >= 0) == is_taken, "a removed process does not come back"
        if not is_taken:
            assert await self.pool.redis.exists(*self._agent_keys(agent_id)) == 0
        await self.check()

    async def come_back(self, which: int) -> None:
        """An agent has lost its lease and registers anew, as what it was told to be."""
        if agent_id := self._agent(which):
            process = self.model.agents[agent_id].process
            await self.reap(which, is_leaving=True)
            await self.register(which, process)

    async def order(self, which: int, how: int) -> None:
        if agent_id := self._agent(which):
            order = (Order.DRAIN, Order.UNDRAIN, Order.UNDRAIN, Order.DRAIN, Order.REMOVE)[how % 5]
            expected = self.model.order(agent_id, order)
            call = self.pool.order
            answer = await self._call(lambda: call(agent_id, order, now_ms=self.model.now), compare=None)
            if order is Order.UNDRAIN and answer and answer.is_obeyed:
                answer = Ordered(True, expected.num_running if expected else -1)  # it may have been given some at once
            assert answer == expected
            await self.check()

    async def claim(self, which: int) -> None:
        """Of an agent that has got a slot more, behind the scripts' back: else they have given it all there is."""
        if agent_id := self._agent(which):
            agent = self.model.agents[agent_id]
            if agent.slots < MAX_SLOTS:
                agent.slots += 1
                await self.pool.redis.hset(self.pool.keys.agent(agent_id), "slots", agent.slots)
            policy = await read_policy_state(self.pool, self.model.now)
            before = await self._lane(agent_id)
            answer = await self._call(lambda: self.pool.claim(agent_id, now_ms=self.model.now), compare=None)
            assert (answer.num_given == -1) == (not self.model.is_leased(agent_id))
            if agent_id in policy.agents:
                tickets = policy.claim(agent_id, self.model.now).tickets
                assert await self._lane(agent_id) == before + [request_id for request_id, _ in tickets], tickets
                self.num_chosen += len(tickets)
            await self.check()

    async def deliver(self, which: int) -> None:
        if agent_id := self._agent(which):
            lanes = await self.pool.redis.xreadgroup("agent", agent_id, {self.pool.keys.lane(agent_id): ">"})
            for _, entries in lanes:
                for _, fields in entries:
                    ticket = (agent_id, fields[b"id"].decode(), int(fields[b"attempt"]))
                    assert self.model.fence(*ticket) is not Disposition.FENCED, (
                        "a lane holds only tickets that are valid"
                    )
                    self.tickets.append(ticket)

    async def open(self, which: int) -> None:
        if ticket := self._ticket(which):
            frame = encode_frame(Opened(ticket[0], ticket[2]))
            expected = self.model.open(*ticket, frame)
            answer = await self._call(lambda: self.pool.open(*ticket, frame, now_ms=self.model.now))
            assert answer.disposition is expected
            if expected is Disposition.OK:
                assert answer.journal == self.model.requests[ticket[1]].journal
            await self.check()

    async def emit(self, which: int, how: int) -> None:
        if ticket := self._ticket(which):
            offset, frames = self._frames(ticket, how)
            expected = self.model.emit(*ticket, offset, frames)
            emission = Emission(ticket[1], ticket[2], offset, frames)
            (answer,) = await self._call(lambda: self.pool.emit(ticket[0], [emission], now_ms=self.model.now))
            assert (answer.disposition, answer.length) == expected
            await self.check()

    async def settle(self, which: int, how: int) -> None:
        if ticket := self._ticket(which):
            offset, _ = self._frames(ticket, how)
            outcome = (Outcome.DONE, Outcome.DONE, Outcome.FAILED, Outcome.CANCELLED)[how % 4]
            expected = self.model.settle(*ticket, offset, END, outcome)
            last = Emission(ticket[1], ticket[2], offset, END)
            answer = await self._call(
                lambda: self.pool.settle(ticket[0], last, outcome, USAGE, now_ms=self.model.now),
                compare=lambda placed: (placed.disposition, placed.length),
            )
            assert (answer.disposition, answer.length) == expected
            await self.check()

    async def cancel(self, which: int, how: int) -> None:
        if request := self._request(which):
            inbox = ("", "", *INBOXES)[how % 4]
            expected = self.model.cancel(request.id, CANCELLED_FRAME, inbox)
            answer = await self._call(
                lambda: self.pool.cancel(request.id, CANCELLED_FRAME, leaving_inbox=inbox, now_ms=self.model.now),
                compare=None,
            )
            assert answer is expected
            await self.check()

    async def attach(self, which: int, how: int) -> None:
        if request := self._request(which):
            inbox, offset = INBOXES[how % 2], how % (len(request.journal) + 1)
            if not request.is_ended:
                request.watchers.add(inbox)
            answer = await self._call(lambda: self.pool.attach(request.id, inbox, offset, now_ms=self.model.now))
            seen = await self.check()
            assert (answer.state, answer.journal) == (seen.requests[request.id].state, request.journal[offset:])

    async def repair(self, which: int, how: int) -> None:
        if request := self._request(which):
            length, frames = max(len(request.journal) - how % 2, 0), encode_frame(Tokens((how,), "again"))
            expected = self.model.repair(request.id, length, frames)
            call = self.pool.repair
            answer = await self._call(lambda: call(request.id, length, frames, now_ms=self.model.now), compare=None)
            assert answer == expected
            await self.check()

    async def expire(self) -> None:
        expected = self.model.expire(START_TIMEOUT_FRAME)
        call = self.pool.expire
        answer = await self._call(lambda: call(START_TIMEOUT_FRAME, now_ms=self.model.now), compare=None)
        assert answer == expected
        await self.check()

    async def drain(self, which: int) -> None:
        if agent_id := self._agent(which):
            expected = self.model.drain(agent_id)
            assert await self._call(lambda: self.pool.drain(agent_id, now_ms=self.model.now)) == expected
            await self.check()

    async def reap(self, which: int, *, is_leaving: bool) -> None:
        if agent_id := self._agent(which):
            frames = {"dead_frame": DEAD_FRAME, "cancel_frame": CANCELLED_FRAME}
            lane = set(await self._lane(agent_id))
            assert lane == {one.id for one in self.model.lane(agent_id)}
            expected = self.model.reap(agent_id, is_leaving=is_leaving, **frames)
            answer = await self._call(
                lambda: self.pool.reap(
                    agent_id, max_deaths=MAX_DEATHS, is_leaving=is_leaving, now_ms=self.model.now, **frames
                ),
                compare=None,
            )
            assert (None if answer.is_alive else (answer.num_returned, answer.num_failed)) == expected
            if expected is not None:
                assert await self.pool.redis.exists(*self._agent_keys(agent_id)) == 0, "a reaped agent leaves nothing"
            await self.check()

    async def release(self, which: int) -> None:
        if ticket := self._ticket(which):
            expected = self.model.release(*ticket)
            answer = await self._call(lambda: self.pool.release(*ticket, now_ms=self.model.now), compare=None)
            assert answer is expected
            await self.check()

    async def hold(self, which: int, what: int, how: int) -> None:
        if agent_id := self._agent(which):
            hashes = hashes_of(PROMPTS[1 + what % (len(PROMPTS) - 1)])
            added, removed = (hashes, []) if how % 3 else ([], hashes[how % len(hashes) :])
            self.model.ever_held.update(added)
            answer = await self._call(
                lambda: self.pool.hold(agent_id, ttl_ms=300_000, added=added, removed=removed, now_ms=self.model.now)
            )
            assert answer == self.model.is_leased(agent_id)
            await self.check()

    async def wait(self, how: int) -> None:
        """Time passes, and every agent has renewed its lease for it."""
        await self._pass(PAUSES[how % len(PAUSES)], "")

    async def die(self, which: int) -> None:
        """An agent is not heard of until its lease is over, and is reaped: mostly one that works on a frail request."""
        running = [one for one in self.model.requests.values() if one.state == "running" and one.agent]
        frail = max(running, key=lambda one: one.deaths, default=None)
        if agent_id := frail.agent if frail and which % 3 else self._agent(which):
            await self._pass(max(self.model.agents[agent_id].expiry - self.model.now, 0), agent_id)
            await self.reap(list(self.model.agents).index(agent_id), is_leaving=False)

    async def _pass(self, pause: int, dying: str) -> None:
        call, lease = self.pool.renew, LEASE + pause
        for agent in self.model.agents.values():
            is_lost = not self.model.is_leased(agent.id)
            if agent.id != dying:
                renewed = await call(agent.id, lease_ms=lease, now_ms=self.model.now)
                assert renewed.is_alive == (not is_lost)
                if not is_lost:
                    agent.expiry = self.model.now + lease
                    stopping = {one.id for one in self.model.lane(agent.id) if one.is_stopping}
                    assert set(renewed.cancelled) == stopping
                    assert renewed.asked == agent.wish
        await self.check()
        self.model.now += pause
        await self.check()

    # Runs.

    async def random_step(self, chance: random.Random) -> None:
        """One action; `deliver` and `open` come often, or nothing would ever run."""
        one, two, three = (chance.randrange(10_000) for _ in range(3))
        self.is_repeating = chance.random() < 0.2
        name = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        self.num_actions[name] += 1
        match name:
            case "submit":
                await self.submit(one, two, three)
            case "register":
                await self.register(one)
            case "claim":
                await self.claim(one)
            case "deliver":
                await self.deliver(one)
            case "open":
                await self.open(one)
            case "emit":
                await self.emit(one, two)
            case "settle":
                await self.settle(one, two)
            case "cancel":
                await self.cancel(one, two)
            case "attach":
                await self.attach(one, two)
            case "repair":
                await self.repair(one, two)
            case "expire":
                await self.expire()
            case "drain":
                await self.drain(one)
            case "order":
                await self.order(one, two)
            case "return":
                await self.come_back(one)
            case "leave":
                await self.reap(one, is_leaving=True)
            case "reap":
                await self.reap(one, is_leaving=False)
            case "die":
                await self.die(one)
            case "release":
                await self.release(one)
            case "hold":
                await self.hold(one, two, three)
            case _:
                await self.wait(one if three % 9 == 0 else one % 6)

    def summary(self) -> str:
        model = self.model
        return (
            f"{self.num_steps} steps, {self.num_requests} requests, {self.num_agents} agents, ends {model.ends}, "
            f"{len(model.dead)} dead letters; {dict(self.num_actions)}"
        )

    # Checks.

    async def check(self) -> Seen:
        """The state of Redis is the model's, and whole."""
        self.num_steps += 1
        model = self.model
        seen = await self._look()
        model.observe(seen)
        check_integrity(seen)
        assert seen.ends == model.ends, "one terminal outcome each"
        assert seen.dead == sorted(model.dead)
        assert all(new >= old for new, old in zip(seen.clocks, self.clocks, strict=True)), "no clock goes back"
        self.clocks = seen.clocks
        for request in model.waiting():
            expected = request.deadline if request.opened is None else 0
            assert seen.deadlines.get(request.id, 0) == expected
        for agent_id, agent in model.agents.items():
            assert len(seen.agents[agent_id].lane) <= agent.slots
            assert (seen.agents[agent_id].solo or None) == agent.solo
            assert seen.agents[agent_id].wish == agent.wish
            if model.is_leased(agent_id):  # whoever meets another skips and removes it
                assert seen.agents[agent_id].free == model.num_free(agent_id)
        self._check_nobody_waits_in_vain(seen)
        self._forget_ended()
        return seen

    def _check_nobody_waits_in_vain(self, seen: Seen) -> None:
        """A request that nobody ever held anything of, beside an agent that may take it."""
        free = {agent_id for agent_id in self.model.agents if self.model.num_free(agent_id)}
        for request in self.model.waiting():
            found = seen.requests[request.id]
            is_reserved = request.fruitless > 0 and found.suitor
            if self.model.is_leased(found.avoid) and not self.model.agents[found.avoid].is_leaving:
                assert seen.agents[found.avoid].lane, "it avoids an agent that has nothing else to do"
            if not request.hashes & self.model.ever_held and not is_reserved:
                assert not free - {found.avoid}, (request, "waits beside a free slot")

    def _forget_ended(self) -> None:
        ended = [one.id for one in self.model.requests.values() if one.is_ended]
        for request_id in ended[:-MAX_ENDED]:
            del self.model.requests[request_id]
        self.tickets = [ticket for ticket in self.tickets if ticket[1] in self.model.requests][-60:]

    async def _look(self) -> Seen:
        return await look(self.pool, self.model.requests, self.model.agents, TENANTS)

    async def _call(
        self, call: Callable[[], Awaitable[Any]], compare: Callable[[Any], Any] | None = lambda x: x
    ) -> Any:
        """Call, and when repeating call again: nothing may change, and by `compare` the answer is the same."""
        answer = await call()
        if self.is_repeating:
            before = await self._look()
            again = await call()
            after = await self._look()
            assert replace(after, ends=before.ends) == before, "a repeated call changed something"
            assert compare is None or compare(again) == compare(answer), (answer, again)
        return answer

    # Choices.

    def _agent(self, which: int) -> str | None:
        agents = list(self.model.agents)
        return agents[which % len(agents)] if agents else None

    def _request(self, which: int) -> Request | None:
        """One in two times one that runs, if any does."""
        running = [one for one in self.model.requests.values() if one.state == "running"]
        requests = running if running and which % 2 else list(self.model.requests.values())
        return requests[which // 2 % len(requests)] if requests else None

    def _ticket(self, which: int) -> Ticket | None:
        """One in four times any that was ever delivered, the way a zombie has it."""
        valid = [ticket for ticket in self.tickets if self.model.fence(*ticket) is not Disposition.FENCED]
        choice = valid if valid and which % 4 else self.tickets
        return choice[which // 4 % len(choice)] if choice else None

    def _frames(self, ticket: Ticket, how: int) -> tuple[int, bytes]:
        """Mostly the next frames; now and then those before once more, too early or too late ones."""
        request = self.model.requests[ticket[1]]
        length, frames = len(request.journal), encode_frame(Tokens((how,), "x" * (how % 3)))
        return max(length + (0, 0, 0, 0, -len(frames), -len(END), 5, -3)[how // 4 % 8], 0), frames

    async def _lane(self, agent_id: str) -> list[str]:
        entries = await self.pool.redis.xrange(self.pool.keys.lane(agent_id))
        return [fields[b"id"].decode() for _, fields in entries]

    def _agent_keys(self, agent_id: str) -> list[str]:
        keys = self.pool.keys
        return [keys.lane(agent_id), keys.agent(agent_id), keys.held(agent_id), keys.preempted(agent_id)]

    async def finish(self) -> None:
        """Serve everything to its end, let all leave, and look once more."""
        self.is_repeating = False
        while self.model.agents:
            await self.reap(0, is_leaving=True)
        await self.register(2)
        while any(not one.is_ended for one in self.model.requests.values()):
            before = self.model.ends.copy()
            await self.deliver(0)
            for ticket in list(self.tickets):
                if ticket[1] in self.model.requests and self.model.fence(*ticket) is not Disposition.FENCED:
                    self.tickets = [ticket]
                    await self.settle(0, 0)
            assert self.model.ends != before, "no end in sight"
        while self.model.agents:
            await self.reap(0, is_leaving=True)
        seen = await self.check()
        assert seen.demand == seen.demand_batch == []
