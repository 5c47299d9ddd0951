"""The thread that owns the engine. Commands go in through a queue, events come out on the asyncio loop.

Progress of this thread is what renews the agent's lease: a decode that hangs must lose it (and see `watchdog.py`).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from msgspec import Struct

from paddler.engine import Done, Engine, Event, Job, ModelError, Preempted, Rejected
from paddler.logs import get_logger
from paddler.wire.balancer import FinishReason, Usage

log = get_logger(__name__)

Result = TypeVar("Result")

IDLE_WAIT_S = 0.5


class Start(Struct, frozen=True):
    job: Job


class Cancel(Struct, frozen=True):
    request_id: str


class Unpin(Struct, frozen=True):
    request_id: str


class UseTemplate(Struct, frozen=True):
    source: str | None
    done: asyncio.Future[None]


class SaveRunning(Struct, frozen=True):
    done: asyncio.Future[int]


class Stop(Struct, frozen=True):
    pass


Command = Start | Cancel | Unpin | UseTemplate | SaveRunning | Stop


class EngineThread:
    """Runs an engine until stopped or until it fails. `deliver` is called on the asyncio loop, events in order.

    A job that `is_pinned` starts when no other waits for a slot, and is cancelled for one that does: what it has
    computed by then stays, so that it loses nothing. `on_template` is called, on the loop, when another is in use."""

    def __init__(self, engine: Engine, deliver: Callable[[list[Event]], None]) -> None:
        self.engine = engine
        self.num_rounds = 0
        self.num_steps = 0
        self.is_stepping = False
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._later: deque[Job] = deque()
        self._giving_way: set[str] = set()
        """Jobs of `is_pinned` that run."""
        self.on_template: Callable[[], None] = lambda: None
        self._num_running = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start_thread(self) -> None:
        self._thread.start()

    def start(self, job: Job) -> None:
        self._commands.put(Start(job))
        if not job.is_pinned and self.is_stepping and self._num_running == len(self._giving_way):
            # One alone computes for up to a second in a step.
            self.engine.interrupt()

    def cancel(self, request_id: str) -> None:
        self._commands.put(Cancel(request_id))

    def is_giving_way(self, request_id: str) -> bool:
        """Whether this job that `is_pinned` has a slot."""
        return request_id in self._giving_way

    def unpin(self, request_id: str) -> None:
        self._commands.put(Unpin(request_id))

    def use_template(self, source: str | None) -> asyncio.Future[None]:
        """Done when the engine uses it. Raises `ModelError`."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._commands.put(UseTemplate(source, done))
        return done

    def save_running(self) -> asyncio.Future[int]:
        """Done when the engine has given the states of its jobs to the tiers, with the number of tokens that they had
        no room for; it goes on with them."""
        done: asyncio.Future[int] = self._loop.create_future()
        self._commands.put(SaveRunning(done))
        return done

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to end and wait for it; a hung decode is left behind with its daemon thread: False."""
        self._commands.put(Stop())
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self.run_once()
            self.engine.close()
        except BaseException as error:
            log.exception("the engine failed")
            self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    def run_once(self) -> None:
        """One round: commands, one step, events."""
        is_idle = self._num_running == 0 and not self._waiting and not self._later
        self._take_commands(is_idle=is_idle and not self.engine.is_saving)
        while self._waiting and self.engine.num_free_slots > 0:
            self.engine.start(self._waiting.popleft())
            self._num_running += 1
        if self._waiting:
            for request_id in self._giving_way:
                self.engine.cancel(request_id)
        while self._later and not self._waiting and self.engine.num_free_slots > 0:
            job = self._later.popleft()
            self.engine.start(job)
            self._giving_way.add(job.request_id)
            self._num_running += 1
        events: list[Event] = []
        if self._num_running or self.engine.is_saving:
            self.is_stepping = True
            events = self.engine.step()
            self.is_stepping = False
            self.num_steps += 1
        ended = [event.request_id for event in events if isinstance(event, Done | Rejected | Preempted)]
        self._num_running -= len(ended)
        self._giving_way.difference_update(ended)
        self.num_rounds += 1
        if events:
            self._loop.call_soon_threadsafe(self._deliver, events)

    def _take_commands(self, *, is_idle: bool) -> None:
        try:
            command = self._commands.get(timeout=IDLE_WAIT_S) if is_idle else self._commands.get_nowait()
            while True:
                self._apply(command)
                command = self._commands.get_nowait()
        except Empty:
            pass

    def _apply(self, command: Command) -> None:
        match command:
            case Start(job):
                (self._later if job.is_pinned else self._waiting).append(job)
            case Unpin(request_id):
                if events := self.engine.unpin(request_id):
                    self._loop.call_soon_threadsafe(self._deliver, events)
            case Cancel(request_id):
                self._cancel(request_id)
            case UseTemplate(source, done):
                try:
                    self.engine.use_template(source)
                except ModelError as error:
                    self._loop.call_soon_threadsafe(_end, done, None, error)
                else:
                    self._loop.call_soon_threadsafe(_end, done, None)
                    self._loop.call_soon_threadsafe(self.on_template)
            case SaveRunning(done):
                num_refused = self.engine.save_running()
                self._loop.call_soon_threadsafe(_end, done, num_refused)
            case Stop():
                self._is_stopping = True

    def _cancel(self, request_id: str) -> None:
        for queue in (self._waiting, self._later):
            if job := next((job for job in queue if job.request_id == request_id), None):
                queue.remove(job)
                done: list[Event] = [Done(request_id, FinishReason.CANCELLED, Usage())]
                self._loop.call_soon_threadsafe(self._deliver, done)
                return
        self.engine.cancel(request_id)


def _end(done: asyncio.Future[Result], result: Result, error: Exception | None = None) -> None:
    if done.done():
        return  # nobody waits any more
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
