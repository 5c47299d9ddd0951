"""The management service over HTTP: what the dashboard, and commands that go the same way, ask and hear."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import httpx
import msgspec
import rich_click as click
from httpx_sse import EventSource, SSEError
from msgspec import Struct

from paddler.dashboard.address import Access

_T = TypeVar("_T")

TIMEOUT_S = 5.0
SILENCE_S = 25.0
"""A stream has something to say every ten seconds, if only that it is there."""


class CannotTalk(Exception):
    """What the balancer said no to, or why it cannot be reached: one line without its full stop."""


class Refused(CannotTalk):
    """The balancer is there, and this is what it says."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Management:
    """Each call raises `CannotTalk`. A `Struct` is decoded from the answer; `bytes` are the answer as it is."""

    def __init__(self, access: Access) -> None:
        self._access = access
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=4)
        self._http = httpx.AsyncClient(verify=access.context(), timeout=TIMEOUT_S, limits=limits)

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, kind: type[_T], **query: str | int) -> _T:
        return await self._call("GET", path, kind, query)

    async def post(self, path: str, kind: type[_T], body: bytes | None = None) -> _T:
        """`body` is JSON."""
        return await self._call("POST", path, kind, {}, body)

    async def delete(self, path: str, kind: type[_T]) -> _T:
        return await self._call("DELETE", path, kind, {})

    async def _call(
        self, method: str, path: str, kind: type[_T], query: dict[str, str | int], body: bytes | None = None
    ) -> _T:
        headers = self._headers() if body is None else {**self._headers(), "content-type": "application/json"}
        try:
            answer = await self._http.request(
                method, self._access.url + path, headers=headers, params=query or None, content=body
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        _check(answer)
        return self._decoded(answer.content, kind)

    async def events(self, path: str, kind: type[_T]) -> AsyncGenerator[_T]:
        """Of a stream; it ends when the balancer ends it."""
        timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        headers = self._headers() | {"accept": "text/event-stream"}
        try:
            async with self._http.stream("GET", self._access.url + path, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    await answer.aread()
                _check(answer)
                async with aclosing(EventSource(answer).aiter_sse()) as events:
                    async for event in events:
                        yield self._decoded(event.data.encode(), kind)
        except SSEError:
            raise self._not_ours() from None
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _headers(self) -> dict[str, str]:
        try:
            key = self._access.api_key()
        except OSError as error:
            raise CannotTalk(f"{error.strerror}: --api-key-file {self._access.key_file}") from None
        except ValueError as error:
            raise CannotTalk(f"{error}: --api-key-file {self._access.key_file}") from None
        return {} if key is None else {"authorization": f"Bearer {key}"}

    def _decoded(self, answer: bytes, kind: type[_T]) -> _T:
        try:
            if kind is bytes:
                msgspec.json.decode(answer, type=msgspec.Raw)
                return answer  # pyright: ignore[reportReturnType]  # it is bytes
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._not_ours() from None

    def _not_ours(self) -> CannotTalk:
        return CannotTalk(f"what answers at {self._access.shown} is no management service of Paddler")

    def _unreachable(self, error: httpx.HTTPError) -> CannotTalk:
        """What the innermost error says, as the outer ones only say that there is one."""
        where, told = self._access.shown, str(error).rstrip(".") or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return CannotTalk(f"{where} does not answer")
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return CannotTalk(f"{where} shows a certificate that is not trusted ({cause.verify_message}): --tls-ca")
            if isinstance(cause, OSError) and cause.errno and cause.strerror:
                # asyncio has words of its own there, with the address in them once more.
                told = os.strerror(cause.errno or 0) if cause.errno in errno.errorcode else cause.strerror
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and self._access.url.startswith("http://"):
            told += "; does it speak HTTPS? Then say https://HOST:PORT, or --tls-ca"
        return CannotTalk(f"{where} cannot be reached: {told}")


def talk(access: Access, act: Callable[[Management], Awaitable[_T]]) -> _T:
    """Do it in a connection of its own. Raises `ClickException` where the balancer cannot be talked to, or refuses."""

    async def connected() -> _T:
        management = Management(access)
        try:
            return await act(management)
        finally:
            await management.close()

    try:
        return asyncio.run(connected())
    except CannotTalk as error:
        raise click.ClickException(f"{error}.") from None


class _ErrorObject(Struct):
    message: str


class _Error(Struct):
    error: _ErrorObject


def _check(answer: httpx.Response) -> None:
    """Raises `Refused` unless it is a success; its content has been read then."""
    if answer.is_success:
        return
    try:
        words = msgspec.json.decode(answer.content, type=_Error).error.message.rstrip(".")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        words = f"the balancer answered {answer.status_code}; is this its management service?"
    if answer.status_code in (401, 403):
        words += ": --api-key-file with a key of scope management"
    raise Refused(answer.status_code, words)
