"""The files and batches of a balancer, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import httpx
import msgspec
from msgspec import Struct

_T = TypeVar("_T")

TIMEOUT_S = 30.0


class CannotTalk(Exception):
    """What the balancer said no to, or why it cannot be reached, in one line."""


class Away(CannotTalk):
    """It cannot be reached, or not just now: what was asked may be asked again."""


class Counts(Struct):
    total: int = 0
    completed: int = 0
    failed: int = 0


class LineError(Struct):
    message: str
    code: str | None = None
    line: int | None = None
    param: str | None = None


class Errors(Struct):
    data: list[LineError] = []


class Batch(Struct):
    """What is shown of a batch; times are seconds since the epoch."""

    id: str
    status: str
    endpoint: str
    created_at: int
    expires_at: int | None = None
    request_counts: Counts = msgspec.field(default_factory=Counts)
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: Errors | None = None
    metadata: dict[str, str] | None = None
    input_file_id: str = ""

    @property
    def has_ended(self) -> bool:
        return self.status in ("failed", "completed", "expired", "cancelled")


class BatchList(Struct):
    data: list[Batch]
    has_more: bool = False


class FileObject(Struct):
    id: str


class BatchClient:
    """It, and each call, raises `CannotTalk`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._url = url
        # An upload is as slow as its network; what must come soon is a connection and the answer's head.
        timeout = httpx.Timeout(TIMEOUT_S, read=300.0, write=None)
        try:
            self._http = httpx.Client(
                base_url=url.rstrip("/").removesuffix("/v1"),
                timeout=timeout,
                headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            )
        except httpx.InvalidURL as error:
            raise CannotTalk(f"--url {url} is no URL: {error}") from None

    def close(self) -> None:
        self._http.close()

    def upload(self, path: Path) -> str:
        """The id of the file; it is read as it is sent."""
        with path.open("rb") as file:
            return self._upload(path.name, file)

    def _upload(self, name: str, file: BinaryIO) -> str:
        answer = self._call("POST", "/v1/files", data={"purpose": "batch"}, files={"file": (name, file)})
        return self._decoded(answer, FileObject).id

    def create(self, input_file_id: str, endpoint: str, window: str, metadata: dict[str, str]) -> Batch:
        asked = {"input_file_id": input_file_id, "endpoint": endpoint, "completion_window": window}
        body = asked | ({"metadata": metadata} if metadata else {})
        return self._batch("POST", "/v1/batches", json=body)

    def get(self, batch_id: str) -> Batch:
        return self._batch("GET", f"/v1/batches/{batch_id}")

    def cancel(self, batch_id: str) -> Batch:
        return self._batch("POST", f"/v1/batches/{batch_id}/cancel")

    def list(self, limit: int) -> BatchList:
        return self._decoded(self._call("GET", "/v1/batches", params={"limit": limit}), BatchList)

    def download(self, file_id: str, out: BinaryIO) -> None:
        """Write the contents as they come."""
        try:
            with self._http.stream("GET", f"/v1/files/{file_id}/content") as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                out.writelines(answer.iter_bytes())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None

    def _batch(self, method: Literal["GET", "POST"], path: str, **how: Any) -> Batch:
        return self._decoded(self._call(method, path, **how), Batch)

    def _decoded(self, answer: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise CannotTalk(f"--url {self._url} does not answer as a balancer does.") from None

    def _call(self, method: Literal["GET", "POST"], path: str, **how: Any) -> bytes:
        try:
            answer = self._http.request(method, path, **how)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if answer.is_error:
            raise _refusal(answer)
        return answer.content

    def _unreachable(self, error: Exception) -> CannotTalk:
        kind = Away if isinstance(error, httpx.TransportError) and not _is_wrong(error) else CannotTalk
        told = str(error) or type(error).__name__
        return kind(
            f"--url {self._url} cannot be talked to: {told}. Start a balancer there, or name one that runs with --url"
        )


def _is_wrong(error: httpx.TransportError) -> bool:
    """However often it is asked."""
    return isinstance(error, httpx.UnsupportedProtocol)


def _refusal(answer: httpx.Response) -> CannotTalk:
    return (Away if answer.is_server_error else CannotTalk)(_told(answer))


class _ErrorObject(Struct):
    message: str


class _Error(Struct):
    error: _ErrorObject


def _told(answer: httpx.Response) -> str:
    try:
        message = msgspec.json.decode(answer.content, type=_Error).error.message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"the balancer answered {answer.status_code}; is --url that of its inference or OpenAI service?"
    return f"the balancer answered {answer.status_code}: {message}"
