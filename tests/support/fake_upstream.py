"""A server as an agent may front one, on a real socket, that says what a test likes and as badly as it likes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, Self

STEP_S = 0.01


class Asked:
    """One request, and the answer to it."""

    def __init__(self, fake: FakeUpstream, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
        self.method = self.path = ""
        self.headers: dict[str, str] = {}
        self.body: Any = None
        self.is_left = False
        """Its client closed the connection before the end."""
        self._fake = fake
        self._writer = writer
        self._reader = reader

    async def read(self) -> bool:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        self.method, self.path, _ = first.split(" ")
        self.headers = {name.lower(): value for name, colon, value in (line.partition(": ") for line in lines) if colon}
        size = int(self.headers.get("content-length", "0"))
        data = await self._reader.readexactly(size)
        self.body = json.loads(data) if data else None
        return True

    async def json(self, value: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(value).encode()
        await self.begin(status, "application/json", size=len(data), **headers)
        await self.raw(data)

    async def begin(
        self, status: int = 200, kind: str = "text/event-stream", *, size: int = -1, **headers: str
    ) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {kind}", "connection: close"]
        lines += [f"content-length: {size}"] if size >= 0 else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def event(self, value: Any) -> None:
        await self.raw(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")

    async def left(self) -> None:
        """Wait until the client has closed the connection."""
        await self._reader.read()
        self.is_left = True

    def abort(self) -> None:
        """Break off, as a killed server does."""
        self._writer.transport.abort()


Handler = Callable[[Asked], Awaitable[None]]


class FakeUpstream:
    """By default a llama-server with one model `/models/tiny.gguf` and `slots` slots that takes chats and raw prompts.
    `routes` are handlers by path, which a test sets and changes at any time, `nowhere` that of all others."""

    def __init__(self, *, slots: int | None = 2, key: str | None = None, owner: str = "llamacpp") -> None:
        self.key = key
        self.num_busy = 0
        self.asked: list[Asked] = []
        self.routes: dict[str, Handler | None] = {
            "/v1/models": always({"data": [{"id": "/models/tiny.gguf", "owned_by": owner}]}),
            "/health": always({"status": "ok"}),
            "/v1/chat/completions": telling("hello"),
            "/v1/completions": telling("hello"),
            "/apply-template": rendering,
        }
        self.empty: dict[str, Handler] = {}
        """What a route says to an empty object, where that is not as llama-server does."""
        self.nowhere = always({"error": {"message": "File Not Found", "code": 404}}, 404)
        if slots is not None:
            props = {"total_slots": slots, "default_generation_settings": {"n_ctx": 4096}, "build_info": "fake"}
            self.routes["/props"] = always(props)
            self.routes["/slots"] = self._slots
            self._num_slots = slots
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def generated(self) -> list[Asked]:
        """The requests that wanted something generated."""
        return [one for one in self.asked if one.path.endswith("completions") and one.body]

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Listen, at the port that it had before."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        """End at once, with all connections."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            # asyncio leaves a socket open that it has accepted and comes to when the server is closed.
            while accepting := asyncio.all_tasks() - {asyncio.current_task(), *self._serving}:
                await asyncio.wait(accepting, timeout=STEP_S)
            self._server.close()
            self._server = None
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        # One that was cancelled before its first turn has closed nothing.
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = Asked(self, writer, reader)
        try:
            await asked.read()
            self.asked.append(asked)
            handler = self.routes.get(asked.path)
            if self._is_locked_for(asked):
                handler = always({"error": {"message": "Invalid API Key", "code": 401}}, 401)
            if handler is None:
                handler = self.nowhere
            elif asked.method == "POST" and asked.body == {}:
                handler = self.empty.get(asked.path, _LACKING)
            await handler(asked)
        except (ConnectionError, asyncio.IncompleteReadError):
            asked.is_left = True
        finally:
            writer.close()
            self._writers.discard(writer)

    def _is_locked_for(self, asked: Asked) -> bool:
        is_public = self.key is None or asked.path in ("/health", "/v1/models")
        return not is_public and asked.headers.get("authorization") != f"Bearer {self.key}"

    async def _slots(self, asked: Asked) -> None:
        busy = [{"id": number, "is_processing": number < self.num_busy} for number in range(self._num_slots)]
        await asked.json(busy)


def always(value: Any, status: int = 200, **headers: str) -> Handler:
    async def answer(asked: Asked) -> None:
        await asked.json(value, status, **headers)

    return answer


_LACKING = always({"error": {"message": "'messages' is required", "code": 400}}, 400)


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """Of a chat."""
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **fields}


def telling(*said: str | dict[str, Any], finish: str = "stop", usage: dict[str, Any] | None = None) -> Handler:
    """Streams pieces of text, or whole deltas; to a raw prompt as its route does."""

    async def answer(asked: Asked) -> None:
        if not asked.body.get("stream"):
            await asked.json({"choices": [{"message": {"content": said[0]}}]})
            return
        await asked.begin()
        for one in said:
            if asked.path == "/v1/completions":
                await asked.event({"choices": [{"index": 0, "text": one}]})
            else:
                await asked.event(chunk({"content": one} if isinstance(one, str) else one))
        await asked.event(chunk(finish=finish))
        await asked.event({"choices": [], "usage": usage or {"prompt_tokens": 7, "completion_tokens": len(said)}})
        await asked.event(b"[DONE]")

    return answer


async def rendering(asked: Asked) -> None:
    """A conversation as a prompt."""
    turns = [f"<{one['role']}>{one['content']}" for one in asked.body["messages"]]
    await asked.json({"prompt": "".join(turns) + "<assistant>"})


def breaking_off(*said: str) -> Handler:
    """The connection ends after these pieces."""

    async def answer(asked: Asked) -> None:
        await asked.begin()
        for one in said:
            await asked.event(chunk({"content": one}))
        asked.abort()

    return answer


def for_ever(*said: str) -> Handler:
    """After these pieces it only waits, until its client leaves."""

    async def answer(asked: Asked) -> None:
        await asked.begin()
        for one in said:
            await asked.event(chunk({"content": one}))
        await asked.left()

    return answer


def in_turn(handlers: Iterable[Handler]) -> Handler:
    """Each request gets the next; the last one all that follow."""
    waiting = list(handlers)

    async def answer(asked: Asked) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(asked)

    return answer
