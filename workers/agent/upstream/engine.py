"""The engine of an agent that fronts another server: the protocol of `paddler/engine.py` around HTTP streams.

The streams live on an event loop in a thread of their own. What they say waits in a queue for the next `step`, which is
on the engine's thread like that of any engine. So journal, fence, hand-over and cancel know nothing of servers.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from contextlib import suppress
from queue import Empty, SimpleQueue

from msgspec import Struct, structs

from paddler.clock import Clock
from paddler.engine import (
    Done,
    EngineInfo,
    Event,
    Job,
    KeepsNoStates,
    ModelError,
    NoFreeSlot,
    Preempted,
    Rejected,
    Retained,
    Working,
)
from paddler.errors import InvalidField, UpstreamFailed
from paddler.logs import get_logger
from paddler.payload import check_payload
from paddler.wire.agent import Embed, Generate, Rerank, ability_for
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.rejecting import rejected
from workers.agent.upstream.client import UpstreamClient
from workers.agent.upstream.continuing import Caller
from workers.agent.upstream.encoding import encode
from workers.agent.upstream.generating import Generation, Put
from workers.agent.upstream.held import Held
from workers.agent.upstream.probe import probe
from workers.agent.upstream.server import Server
from workers.agent.upstream.settings import UpstreamSettings
from workers.agent.upstream.trouble import Broken, EndpointOff, Refused, UpstreamTrouble
from workers.agent.upstream.watch import Watch, issue_for

log = get_logger(__name__)

STEP_S = 0.01
"""How long a step waits for news. What starts or is cancelled meanwhile waits as long."""
SILENCE_S = 5.0
"""After this a job says that it goes on."""
MAX_TRIES = 2
"""So often this agent tries a request that fails on its server: the second time it may have been the request."""
MAX_WAITS = 10
"""And one that its server has no room for: some answer so for ever."""
MAX_REMEMBERED = 1024
STOP_S = 2.0


class _Running(Struct, eq=False):
    """A job between `start` and its end; `number` tells it from an earlier one of the same id."""

    job: Job
    number: int
    task: asyncio.Task[None] | None = None
    generation: Generation | None = None
    is_over: bool = False

    @property
    def usage(self) -> Usage:
        return self.job.earlier_usage if self.generation is None else self.generation.usage


class UpstreamEngine(KeepsNoStates):
    """Implements `paddler.engine.Engine`. Raises `ModelError` when the server cannot be served from."""

    def __init__(self, settings: UpstreamSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._news: SimpleQueue[tuple[int, Event]] = SimpleQueue()
        self._jobs: dict[str, _Running] = {}
        self._told: list[Event] = []
        self._number = 0
        self._tries: OrderedDict[str, int] = OrderedDict()
        self._num_open = 0
        self._held = Held()
        self._client = UpstreamClient(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        try:
            self._server = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        except BaseException:
            self._stop()
            raise

    async def _open(self) -> Server:
        settings, client = self._settings, self._client
        try:
            client.read_key()
            server = await probe(client, settings)
        except UpstreamTrouble as trouble:
            issue = issue_for(trouble, settings.url)
            raise ModelError(issue.detail, kind=issue.kind) from None
        self._caller = Caller(server, client)
        slots = settings.slots or server.num_slots
        if slots is None:
            raise ModelError(
                f"{settings.url} does not say how many requests it serves at once: say it with --slots",
                kind="SettingsInvalid",
            )
        if server.num_slots is not None and slots > server.num_slots:
            log.warning("the server has fewer slots than asked for", asked=slots, slots=server.num_slots)
            slots = server.num_slots
        self._info = EngineInfo(
            model=server.name,
            slots_total=slots,
            context_size=server.context_size,
            build=server.build,
            abilities=server.abilities,
            max_parked=slots if server.dialect.tells_progress else 0,
            weights=f"{server.model} of another server",
        )
        self._held.max_parked = self._info.max_parked
        self._watch = Watch(
            client,
            server,
            self._clock,
            slots=slots,
            interval_s=settings.interval_s,
            num_ours=lambda: self._num_open,
            probe=lambda: probe(client, settings),
        )
        await self._watch.run_look_once()
        self._watching = asyncio.create_task(self._watch.run())
        log.info(
            "fronting another server",
            url=settings.url,
            speaks=server.dialect.name,
            model=server.model,
            slots=slots,
            abilities=" ".join(server.abilities),
        )
        return server

    @property
    def info(self) -> EngineInfo:
        condition = self._watch.condition
        return structs.replace(self._info, slots_usable=condition.num_slots, issues=condition.issues)

    @property
    def num_free_slots(self) -> int:
        return self._info.slots_total - len(self._jobs)

    def start(self, job: Job) -> None:
        if self.num_free_slots == 0:
            raise NoFreeSlot(f"no free slot for request {job.request_id}")
        self._number += 1
        running = _Running(job, self._number)
        self._jobs[job.request_id] = running
        self._loop.call_soon_threadsafe(self._begin, running)

    def use_template(self, source: str | None) -> None:
        """Raises `ModelError`: conversations go to the server as they are, and its template makes prompts of them."""
        if source is not None:
            raise ModelError("the chat template of another server cannot be replaced", kind="SettingsInvalid")

    def cancel(self, request_id: str) -> None:
        running = self._jobs.pop(request_id, None)
        if running is None:
            return
        self._loop.call_soon_threadsafe(self._abort, running)
        self._told.append(Done(request_id, FinishReason.CANCELLED, running.usage))
        self._told += self._held.ended(request_id, None)

    def step(self) -> list[Event]:
        events, self._told = self._told, []
        if not self._jobs:
            return events
        with suppress(Empty):
            self._take(*self._news.get(timeout=0 if events else STEP_S), events)
            while True:
                self._take(*self._news.get_nowait(), events)
        return events

    def interrupt(self) -> None:
        """Nothing: a step waits for milliseconds."""

    def close(self) -> None:
        self._jobs.clear()
        self._told.clear()
        self._stop()

    def _take(self, number: int, event: Event, events: list[Event]) -> None:
        running = self._jobs.get(event.request_id)
        if running is None or running.number != number:
            return  # of a job that was cancelled
        events.append(event)
        if isinstance(event, Retained):
            self._held.began(event)
        elif isinstance(event, Done | Rejected | Preempted):
            del self._jobs[event.request_id]
            events += self._held.ended(event.request_id, event if isinstance(event, Done) else None)

    # From here on: on the loop of the streams

    def _begin(self, running: _Running) -> None:
        if not running.is_over:
            running.task = asyncio.create_task(self._run(running))

    def _abort(self, running: _Running) -> None:
        running.is_over = True
        if running.task is not None:
            running.task.cancel()

    async def _run(self, running: _Running) -> None:
        said_at = self._clock.monotonic()

        def put(event: Event) -> None:
            nonlocal said_at
            said_at = self._clock.monotonic()
            self._news.put((running.number, event))

        self._num_open += 1
        serving = asyncio.create_task(self._serve(running, put))
        try:
            while not serving.done():
                left_s = said_at + SILENCE_S - self._clock.monotonic()
                await asyncio.wait({serving}, timeout=max(left_s, 0.05))
                if not serving.done() and self._clock.monotonic() - said_at >= SILENCE_S:
                    put(Working(running.job.request_id))
            last = await serving
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            self._num_open -= 1
        put(last)

    async def _serve(self, running: _Running, put: Put) -> Event:
        """The last event of a job."""
        job, payload = running.job, running.job.payload
        try:
            check_payload(payload)
            if ability_for(payload) not in self._server.abilities:
                can = ", ".join(self._server.abilities)
                raise InvalidField(
                    f"the server behind {self._info.model} can only {can}: choose another", param="model"
                )
            if isinstance(payload, Generate):
                running.generation = Generation(job, payload, self._server, self._client, self._caller, put)
                return await running.generation.run()
            assert isinstance(payload, Embed | Rerank)
            return await encode(job, payload, self._server, self._client, put)
        except Refused as trouble:
            return rejected(job, trouble.error, running.usage)
        except UpstreamTrouble as trouble:
            return self._failed(running, trouble)
        except Exception as error:
            return rejected(job, error, running.usage)

    def _failed(self, running: _Running, trouble: UpstreamTrouble) -> Event:
        """Back to the queue, where another agent may take it, until it has been tried often enough."""
        request_id = running.job.request_id
        self._watch.failed(trouble)
        num = self._tries.pop(request_id, 0) + 1
        most = MAX_TRIES if isinstance(trouble, Broken | EndpointOff) else MAX_WAITS
        log.warning("a request failed on the server", request=request_id, tries=num, why=trouble.brief)
        if num >= most:
            told = f"the server behind this model failed: {trouble.message}; send the request again later"
            return rejected(running.job, UpstreamFailed(told), running.usage)
        self._tries[request_id] = num
        while len(self._tries) > MAX_REMEMBERED:
            self._tries.popitem(last=False)
        return Preempted(request_id)

    def _stop(self) -> None:
        if self._loop.is_closed():
            return
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result(STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()
        await asyncio.get_running_loop().shutdown_asyncgens()
