"""Clients of Paddler 4: the published one, and a socket whose every message a test sees."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from paddler_client import ClientInference, ClientManagement
from paddler_client.continue_from_conversation_history_params import ContinueFromConversationHistoryParams
from paddler_client.conversation_message import ConversationMessage
from paddler_client.inference_message import InferenceMessage, InferenceMessageKind
from websockets.asyncio.client import ClientConnection, connect

SOCKET = "/api/v1/inference_socket"
T = TypeVar("T")


def inference(url: str, **how: Any) -> ClientInference:
    """The official client. Its own HTTP client would look for proxies."""
    return ClientInference(url=url, http_client=httpx.AsyncClient(timeout=60, trust_env=False), **how)


def management(url: str) -> ClientManagement:
    return ClientManagement(url=url, http_client=httpx.AsyncClient(timeout=20, trust_env=False))


def conversation(text: str, **fields: Any) -> ContinueFromConversationHistoryParams:
    asked: dict[str, Any] = {"add_generation_prompt": True, "enable_thinking": True, "max_tokens": 200}
    history = [ConversationMessage(content=text, role="user")]
    return ContinueFromConversationHistoryParams(conversation_history=history, **(asked | fields))


def params(text: str, **fields: Any) -> dict[str, Any]:
    """The same as a body."""
    asked = {"add_generation_prompt": True, "enable_thinking": True, "max_tokens": 200}
    return {**asked, "conversation_history": [{"role": "user", "content": text}], **fields}


@asynccontextmanager
async def following(stream: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """A stream that the client closes only when it is told to."""
    try:
        yield stream
    finally:
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()


class Told:
    """What a client has got for one request."""

    def __init__(self) -> None:
        self.messages: list[InferenceMessage] = []

    async def listen(self, messages: AsyncIterator[InferenceMessage]) -> Told:
        async for message in messages:
            self.messages.append(message)
        return self

    def text(self, *kinds: InferenceMessageKind) -> str:
        """Of tokens of these kinds, or of all."""
        return "".join(one.token or "" for one in self.messages if one.is_token and one.kind in (kinds or [one.kind]))

    @property
    def last(self) -> InferenceMessage:
        return self.messages[-1]


class RawSocket:
    """A socket with requests by hand."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def ask(self, request_id: str, text: str, **fields: Any) -> None:
        await self.send(
            {"Request": {"id": request_id, "request": {"ContinueFromConversationHistory": params(text, **fields)}}}
        )

    async def stop(self, request_id: str) -> None:
        await self.send({"Notification": {"StopRespondingTo": request_id}})

    async def send(self, message: Any) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def next(self) -> dict[str, Any]:
        text = await self.connection.recv()
        assert isinstance(text, str)
        return json.loads(text)

    async def error(self) -> tuple[str, int, str]:
        """The next message, which is an error: whose, its code and its description."""
        error = (await self.next())["Error"]
        return error["request_id"], error["error"]["code"], error["error"]["description"]

    async def result(self) -> tuple[str, Any]:
        """The next message, which is a result: whose, and what."""
        response = (await self.next())["Response"]
        return response["request_id"], response["response"]["GeneratedToken"]

    async def texts(self, num_requests: int) -> dict[str, str]:
        """What so many requests say until each of them is done."""
        texts: dict[str, str] = {}
        num_done = 0
        while num_done < num_requests:
            request_id, result = await self.result()
            ((kind, value),) = result.items()
            if kind == "Done":
                num_done += 1
            else:
                texts[request_id] = texts.get(request_id, "") + value
        return texts


@asynccontextmanager
async def raw_socket(url: str, **how: Any) -> AsyncGenerator[RawSocket]:
    async with connect(url.replace("http", "ws", 1) + SOCKET, proxy=None, **how) as connection:
        yield RawSocket(connection)
