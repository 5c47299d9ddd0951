"""`paddler` commands as processes, started one by one, and the queue between them as anybody may read it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from paddler.store.client import Store, connect
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from paddler.wire.balancer import Finished, Frame, Opened, Tokens, decode_frames, decode_placed

START_S = 90.0
STOP_S = 10.0
LEASE_MS = 2000
SCRIPTED = ("--engine", "scripted")


def asking(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def openai_client(url: str, *, max_retries: int = 0) -> AsyncOpenAI:
    """The official client, which by default would hide trouble by trying again."""
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=max_retries, timeout=60)


class Told:
    """What a client has got of one stream so far."""

    def __init__(self) -> None:
        self.text = ""
        self.finish_reasons: list[str] = []
        self.completion_tokens = 0

    async def listen(self, stream: AsyncStream[ChatCompletionChunk]) -> Told:
        """Read a stream that includes its usage, to the end."""
        async for chunk in stream:
            self.take(chunk)
        return self

    def take(self, chunk: ChatCompletionChunk) -> None:
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            if choice.finish_reason:
                self.finish_reasons.append(choice.finish_reason)
        if chunk.usage:
            self.completion_tokens = chunk.usage.completion_tokens

    async def ask(self, client: AsyncOpenAI, text: str, **fields: Any) -> Told:
        stream: AsyncStream[ChatCompletionChunk] = await client.chat.completions.create(
            model="default", messages=asking(text), stream=True, stream_options={"include_usage": True}, **fields
        )
        return await self.listen(stream)


class Heard(Told):
    """The same, read line by line: the official client hides the ids of the events."""

    def __init__(self) -> None:
        super().__init__()
        self.request_id = ""
        self.offsets: list[int] = []

    async def ask(self, client: AsyncOpenAI, text: str, **fields: Any) -> Heard:
        async with client.chat.completions.with_streaming_response.create(
            model="default", messages=asking(text), stream=True, stream_options={"include_usage": True}, **fields
        ) as response:
            async for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.request_id, _, offset = value.rpartition(":")
                    self.offsets.append(int(offset))
                elif name == "data" and value != "[DONE]":
                    self.take(ChatCompletionChunk.model_validate_json(value))
        return self


class Queue:
    """The pool `default` in numbers, each an `XLEN`, and what it knows of a request."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = store.pool("default").keys
        self.redis: Any = store.redis

    async def num_waiting(self) -> int:
        """Requests in the buffer."""
        return await self.redis.xlen(self._keys.buffer())

    async def num_given(self) -> int:
        """Requests in the lanes of all agents: as many slots are taken."""
        return sum([await self.redis.xlen(self._keys.lane(agent)) for agent in await self.agents()])

    async def num_given_to(self, agent_id: str) -> int:
        return await self.redis.xlen(self._keys.lane(agent_id))

    async def demand(self) -> int:
        """Unfinished requests, waiting or running: what an autoscaler reads."""
        return await self.redis.xlen(self._keys.demand())

    async def is_empty(self) -> bool:
        return await self.demand() == 0

    async def agents(self) -> list[str]:
        return [agent.decode() for agent in await self.redis.zrange(self._keys.agents(), 0, -1)]

    async def num_free_slots(self) -> int:
        return int(sum([slots for _, slots in await self.redis.zrange(self._keys.free(), 0, -1, withscores=True)]))

    async def requests(self, state: str | None = None) -> set[str]:
        """Ids of the requests, of all or of those in a state: waiting, assigned, running, done, failed, cancelled."""
        base = self._keys.request("")
        found = {key.decode() async for key in self.redis.scan_iter(f"{base}*", count=1000)}
        states = {key: (await self.redis.hget(key, "state") or b"").decode() for key in found}
        return {key.removeprefix(base) for key in found if state in (None, states[key])}

    async def frames(self, request_id: str) -> list[Frame]:
        """The journal: everything the request has said."""
        return list(decode_frames(await self.redis.get(self._keys.journal(request_id)) or b""))

    async def token_ids(self, request_id: str) -> list[int]:
        return [token for frame in await self.frames(request_id) if isinstance(frame, Tokens) for token in frame.ids]

    async def num_tokens(self, request_id: str) -> int:
        return len(await self.token_ids(request_id))

    async def text_offsets(self, request_id: str) -> list[int]:
        """Where in the journal each frame with text ends: the ids of the events of a whole stream."""
        placed = decode_placed(await self.redis.get(self._keys.journal(request_id)) or b"", 0)
        return [end for frame, end in placed if isinstance(frame, Tokens) and frame.text]

    async def agent_names(self, request_id: str) -> list[str]:
        """Who has worked on it, in order."""
        return [frame.agent_name for frame in await self.frames(request_id) if isinstance(frame, Opened)]

    async def end(self, request_id: str) -> Finished:
        last = (await self.frames(request_id))[-1]
        assert isinstance(last, Finished), last
        return last

    async def ttls(self, request_id: str) -> list[int]:
        """Seconds that each key of a request has left; -1 is for ever, and the request has such while it is open."""
        keys = self._keys
        names = [build(request_id) for build in (keys.request, keys.payload, keys.journal, keys.watchers)]
        return [ttl for name in names if (ttl := await self.redis.ttl(name)) != -2]


@asynccontextmanager
async def open_queue(url: str, prefix: str = "paddler") -> AsyncGenerator[Queue]:
    store = connect(url, prefix)
    try:
        yield Queue(store)
    finally:
        await store.close()


class Command:
    """One `paddler` process; its log is a file. `entry` is what the interpreter runs."""

    def __init__(self, log: Path, *arguments: str, entry: Sequence[str] = ("-P", "-m", "paddler")) -> None:
        self.name = log.stem
        self._log = log
        command = [sys.executable, *entry, *arguments, "--log-format", "json"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLER_")}
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)

    async def logged(self, event: str, **fields: str) -> dict[str, Any]:
        """Wait for the first record of this event."""

        def find() -> dict[str, Any] | None:
            assert self.process.poll() is None, self._log.read_text()
            lines = [line for line in self._log.read_text().split("\n")[:-1] if line.startswith("{")]
            records: list[dict[str, Any]] = [json.loads(line) for line in lines]
            return next((one for one in records if one["event"] == event and fields.items() <= one.items()), None)

        return await wait_until(find, timeout_s=START_S, poll_s=0.02, what=f"{event} is logged")

    @property
    def text(self) -> str:
        """All of its log, what is no record included."""
        return self._log.read_text()

    def kill(self) -> None:
        """SIGKILL: no goodbye of any kind."""
        self.process.kill()
        self.process.wait()

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None


class CommandFleet:
    """A fleet started by hand, on one Redis, each command a process of its own."""

    def __init__(self, url: str, prefix: str, folder: Path) -> None:
        self._url = url
        self.prefix = prefix
        self._folder = folder
        self._started: list[Command] = []
        self._agents: list[Command] = []
        self._worker: Command | None = None
        self.balancer_url = self.management_url = ""
        self.impatient_url = ""

    def _start(self, *arguments: str) -> Command:
        log = self._folder / f"{len(self._started)}-{arguments[0]}.log"
        command = Command(log, *arguments, "--redis-url", self._url, "--redis-prefix", self.prefix)
        self._started.append(command)
        return command

    async def start(self) -> None:
        """Two balancers, one of them with a buffer of two and a second of patience, and a worker. No agent."""
        anywhere = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")
        patient = self._start("balancer", *anywhere, "--buffered-request-timeout", "60000")
        limits = ("--max-buffered-requests", "2", "--buffered-request-timeout", "1000")
        impatient = self._start("balancer", *anywhere, *limits)
        self.start_worker()
        records = [await one.logged("listening", service="inference") for one in (patient, impatient)]
        self.balancer_url, self.impatient_url = (f"http://{record['address']}" for record in records)
        self.management_url = f"http://{(await patient.logged('listening', service='management'))['address']}"

    def start_worker(self) -> None:
        # An agent that stops renewing is given up after its lease: two seconds, so that nobody here waits for five, and
        # a model on a busy machine still renews in time.
        self._worker = self._start("worker", "--lease", str(LEASE_MS), "--batch-lease", "2000")

    def kill_worker(self) -> None:
        assert self._worker is not None
        self._worker.kill()

    async def agent(self, name: str, *flags: str) -> Command:
        """Start an agent and wait until it is part of the pool. It has the starter model unless `flags` say else."""
        engine = () if flags[:2] == SCRIPTED else ("--model", str(find_starter()))
        agent = self.begin_agent(name, *engine, *flags)
        await agent.logged("registered")
        return agent

    def begin_agent(self, name: str, *flags: str) -> Command:
        """Start an agent and do not wait for anything."""
        agent = self._start("agent", "--name", name, "--lease", str(LEASE_MS), "--grace", "0", *flags)
        self._agents.append(agent)
        return agent

    def log_tails(self, num_lines: int = 40) -> str:
        """The ends of the agents' logs, for who looks into a failure."""
        tails = ["\n".join(agent.text.splitlines()[-num_lines:]) for agent in self._agents]
        return "\n\n".join(f"{agent.name}:\n{tail}" for agent, tail in zip(self._agents, tails, strict=True))

    def stop_agents(self) -> None:
        _stop(self._agents)
        self._agents.clear()

    def close(self) -> None:
        _stop(self._started)


def _stop(commands: list[Command]) -> None:
    """All at once, and each is asked once: a second SIGTERM makes an agent go without handing over."""
    running = [command for command in commands if command.is_running]
    for command in running:
        command.process.send_signal(signal.SIGTERM)
    late: list[str] = []
    for command in running:
        try:
            command.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            command.kill()
            late.append(command.name)
    assert not late, f"not stopped within {STOP_S} s: {late}"
