"""Calls to one server, and what its answers mean."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import msgspec

from paddler.errors import ContextExceeded, InvalidField
from workers.agent.upstream.settings import UpstreamSettings
from workers.agent.upstream.sse import data_lines
from workers.agent.upstream.trouble import Broken, Busy, EndpointOff, KeyRefused, Refused, Unreachable

CONNECT_S = 5.0
LOOK_S = 10.0
"""For an answer to a question about the server itself."""
MAX_BODY = 256 * 1024 * 1024
MAX_ERROR = 64 * 1024
MAX_WORDS = 500
DEFAULT_RETRY_S = 1.0
MAX_RETRY_S = 60.0
_OFF = frozenset({301, 302, 303, 307, 308, 404, 405, 410, 501})
_BUSY = frozenset({425, 429, 503, 529})
_ASKED_WRONGLY = frozenset({400, 413, 415, 422})
_CONTEXT_WORDS = ("context_length_exceeded", "exceed_context_size_error", "maximum context length", "context size")


class UpstreamClient:
    """Bound to the event loop of its first call. All calls raise `UpstreamTrouble`, and nothing else of the network."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self.url = settings.url
        self._settings = settings
        context = httpx.create_ssl_context(trust_env=False)
        context.load_default_certs()  # those of this machine too: a server of one's own may have a CA of its own
        self._http = httpx.AsyncClient(
            base_url=settings.url,
            timeout=httpx.Timeout(settings.timeout_s, connect=CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=4.0),
            verify=context,
            trust_env=False,  # a process's environment is read by its composition root alone
            headers={"user-agent": "paddler"},
        )
        self._extensions = {} if settings.host is None else {"sni_hostname": settings.host.partition(":")[0]}
        if settings.host is not None:
            self._http.headers["host"] = settings.host

    def read_key(self) -> None:
        """Take the key as it is now in its file. Raises `KeyRefused`, when there is none."""
        try:
            key = self._settings.read_key()
        except (OSError, ValueError) as error:
            raise KeyRefused(f"the key cannot be read: {error}") from None
        self._http.headers.pop("authorization", None)
        if key is not None:
            self._http.headers["authorization"] = f"Bearer {key}"

    async def get(self, path: str) -> Any:
        """JSON, or the text of what is none."""
        return await self._ask("GET", path, None, LOOK_S)

    async def post(self, path: str, body: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        return await self._ask("POST", path, body, timeout_s or self._settings.timeout_s)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> Any:
        async with self._open(method, path, body, httpx.Timeout(timeout_s, connect=CONNECT_S)) as response:
            data = await _read(response, MAX_BODY)
        try:
            return msgspec.json.decode(data)
        except msgspec.MsgspecError:
            return data.decode("utf-8", "replace")

    @asynccontextmanager
    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[AsyncIterator[bytes | None]]:
        """The data of each event of an answer. Leaving the context closes the connection, and so ends the work."""
        async with self._open("POST", path, body, None) as response:
            kind = response.headers.get("content-type", "")
            if not kind.lower().startswith("text/event-stream"):
                raise Broken(f"asked for a stream of events, {path} answers with {kind[:60] or 'no content type'}")
            async with aclosing(data_lines(response.aiter_bytes())) as lines:
                yield lines

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: httpx.Timeout | None
    ) -> AsyncGenerator[httpx.Response]:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        try:
            async with self._http.stream(
                method, path, content=content, headers=headers, extensions=self._extensions, **options
            ) as response:
                if response.status_code != 200:
                    await _raise_for(response, path)
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"{self.url} cannot be reached: {_words(error)}") from None
        except httpx.ReadTimeout:
            raise Broken(f"{path} has said nothing for too long") from None
        except httpx.DecodingError:
            raise Broken(f"{path} answers with bytes that cannot be decoded") from None
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Broken(f"the connection to {path} broke off: {_words(error)}") from None

    async def close(self) -> None:
        await self._http.aclose()


async def _raise_for(response: httpx.Response, path: str) -> None:
    status = response.status_code
    told, kind, param = _error_of(await _read(response, MAX_ERROR, is_cut=True))
    brief = f"{path} answers {status}"
    message = f"{brief}: {told}" if told else brief
    if status in (401, 403):
        raise KeyRefused(message, brief=brief)
    if status in _OFF:
        location = response.headers.get("location")
        raise EndpointOff(f"{brief}, it is at {location[:200]}" if location else message, brief=brief)
    if status in _BUSY:
        raise Busy(message, brief=brief, retry_after_s=_retry_after(response))
    if status in _ASKED_WRONGLY:
        words = f"{kind} {told}".lower()
        if status != 415 and any(one in words for one in _CONTEXT_WORDS):
            raise Refused(ContextExceeded(told or "the prompt is longer than the context", param=param))
        raise Refused(InvalidField(told or f"the server refuses the request ({status})", param=param))
    raise Broken(message, brief=brief)


def _error_of(data: bytes) -> tuple[str, str, str | None]:
    """Message, type and field of an error in any of the forms that servers use; empty for none."""
    try:
        body = msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return data.decode("utf-8", "replace").strip()[:MAX_WORDS], "", None
    return error_in(body)


def error_in(body: Any) -> tuple[str, str, str | None]:
    """`{"error": {"message", "type", "code", "param"}}` as OpenAI has it, `{"error": "..."}`, `{"message": ...}`, or
    FastAPI's `{"detail": ...}`."""
    found: Any = body
    if isinstance(found, dict):
        found = found.get("error") or found.get("detail") or found  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(found, dict):
        message = found.get("message")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        kind = f"{found.get('type') or ''} {found.get('code') or ''}"  # pyright: ignore[reportUnknownMemberType]
        param = found.get("param")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return str(message or "")[:MAX_WORDS], kind, param if isinstance(param, str) and param else None  # pyright: ignore[reportUnknownArgumentType]
    return (found if isinstance(found, str) else msgspec.json.encode(found).decode())[:MAX_WORDS], "", None


def _retry_after(response: httpx.Response) -> float:
    """Seconds; of a date as of nothing, a second."""
    text = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return DEFAULT_RETRY_S
    return min(max(seconds, 0.0), MAX_RETRY_S) if seconds == seconds else DEFAULT_RETRY_S


async def _read(response: httpx.Response, limit: int, *, is_cut: bool = False) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > limit:
            if is_cut:
                break
            raise Broken(f"an answer of the server has more than {limit} bytes")
    return bytes(data[:limit])


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
