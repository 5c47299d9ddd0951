"""One run: requests are sent as the load says, until it is over or somebody stops it.

An open loop sends at its times whatever has been answered; a closed loop keeps so many conversations going. In both a
conversation's next turn is due `think_s` after the last answer, and one that failed or was left ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from msgspec import Struct, field

from paddler.bench.client import Client
from paddler.bench.samples import Outcome, Sample
from paddler.bench.workload import Conversation, Workload
from paddler.clock import Clock

WATCH_S = 0.05


class Load(Struct, frozen=True, kw_only=True):
    """`concurrency` conversations at once, or None: as `due` says. It ends after `max_requests`, after `duration_s`, or
    with its workload; what is under way then is waited for."""

    concurrency: int | None = None
    max_requests: int | None = None
    duration_s: float | None = None
    think_s: float = 0.0


class Run(Struct, kw_only=True):
    """`lag_s` is how late the generator itself came to what it had to do: its clock, looked at every 50 ms."""

    samples: list[Sample] = field(default_factory=list[Sample])
    lag_s: list[float] = field(default_factory=list[float])
    end_s: float = 0.0
    is_stopped: bool = False


class Runner:
    """`run` once. `run.samples` may be looked at meanwhile."""

    def __init__(self, client: Client, model: str, workload: Workload, load: Load, clock: Clock) -> None:
        self._client = client
        self._model = model
        self._workload = workload
        self._load = load
        self._clock = clock
        self._next = 0
        self._num_sent = 0
        self.found = Run()
        self.num_ended = 0

    async def run(self, due: Iterator[float] | None, stop: asyncio.Event) -> Run:
        """`due` are the times at which conversations begin; None is a closed loop. Ends early when `stop` is set."""
        self._client.start_s = self._clock.monotonic()
        working = asyncio.create_task(self._closed() if due is None else self._open(due))
        watching = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        self.found.is_stopped = not working.done()
        self.found.end_s = self._client.now_s()
        for task in (working, watching, stopping):
            task.cancel()
        await asyncio.gather(watching, stopping, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await working
        return self.found

    async def _open(self, due: Iterator[float]) -> None:
        async with asyncio.TaskGroup() as group:
            for due_s in due:
                if not self._may_send(due_s) or (conversation := self._take()) is None:
                    return
                # Before the wait, in which turns of others are sent: `max_requests` is of all together.
                self._num_sent += 1
                await self._until(due_s)
                group.create_task(self._converse(conversation, due_s))

    async def _closed(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._load.concurrency or 1):
                group.create_task(self._user())

    async def _user(self) -> None:
        while self._may_send(now_s := self._client.now_s()) and (conversation := self._take()) is not None:
            self._num_sent += 1
            await self._converse(conversation, now_s)

    async def _converse(self, conversation: Conversation, due_s: float) -> None:
        """The first of its requests is already counted as sent."""
        messages: list[dict[str, str]] = []
        if conversation.system is not None:
            messages.append({"role": "system", "content": conversation.system})
        for number, turn in enumerate(conversation.turns):
            if number > 0:
                due_s = self._client.now_s() + self._load.think_s
                if not self._may_send(due_s):
                    return
                self._num_sent += 1
                await self._until(due_s)
            messages.append({"role": "user", "content": turn.text})
            body = self._client.body(
                self._model, messages, turn.output_tokens, is_streamed=self._client.asking.is_streamed
            )
            sample = Sample(conversation.number, number, due_s, self._client.now_s(), is_left=turn.is_left)
            self.found.samples.append(sample)
            answer = await self._client.ask(body, sample)
            self.num_ended += 1
            if sample.outcome is not Outcome.OK:
                return
            messages.append({"role": "assistant", "content": answer})

    def _take(self) -> Conversation | None:
        conversation = self._workload.conversation(self._next)
        self._next += 1
        return conversation

    def _may_send(self, due_s: float) -> bool:
        load = self._load
        is_over = load.duration_s is not None and due_s >= load.duration_s
        return not is_over and (load.max_requests is None or self._num_sent < load.max_requests)

    async def _until(self, due_s: float) -> None:
        wait_s = due_s - self._client.now_s()
        if wait_s > 0:
            await self._clock.sleep(wait_s)

    async def _watch(self) -> None:
        while True:
            due_s = self._client.now_s() + WATCH_S
            await self._clock.sleep(WATCH_S)
            self.found.lag_s.append(self._client.now_s() - due_s)
