"""A stream of server-sent events, and what OpenAI's chat completions say in it."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from paddler.bench.samples import Failure, Kind

DONE = b"[DONE]"
NULL, NO_CALLS = Raw(b"null"), Raw(b"[]")
MAX_LINE = 8 * 1024 * 1024


class Details(Struct):
    cached_tokens: int | None = None


class Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None


class Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Raw = NULL

    @property
    def says_something(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning) or self.tool_calls not in (NULL, NO_CALLS)


class Choice(Struct):
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class Chunk(Struct):
    """Of a stream, or with `message` the whole answer."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Raw = NULL


class ErrorObject(Struct):
    message: str = ""
    code: str | int | None = None


class _Error(Struct):
    error: ErrorObject | str


_CHUNKS = msgspec.json.Decoder(Chunk)
_ERRORS = msgspec.json.Decoder(_Error)
_OBJECTS = msgspec.json.Decoder(ErrorObject | str)


class EventLines:
    """The data of each event, whatever the pieces it comes in (WHATWG's HTML standard 9.2, a `data` line an event)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Raises `Failure`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise Failure(Kind.BROKEN, f"more than {MAX_LINE} bytes came without the end of a line")
        found: list[bytes] = []
        for line in lines:
            # llama.cpp's server has named the field of an error `error`.
            if line.startswith(b"data:"):
                found.append(line[5:].strip())
            elif line.startswith(b"error:"):
                found.append(b'{"error":%s}' % line[6:].strip())
        return found


def read_chunk(data: bytes) -> Chunk:
    """Raises `Failure`, also for one that tells of an error."""
    try:
        chunk = _CHUNKS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Failure(Kind.BROKEN, f"no chunk of a chat completion: {error}") from None
    if chunk.error != NULL:
        raise Failure(Kind.IN_STREAM, _words(bytes(chunk.error)))
    return chunk


def error_words(body: bytes) -> str:
    """Of the answer to a request that was refused."""
    try:
        return _told(_ERRORS.decode(body).error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return " ".join(body[:200].decode(errors="replace").split())


def _words(error: bytes) -> str:
    try:
        return _told(_OBJECTS.decode(error))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return error[:200].decode(errors="replace")


def _told(error: ErrorObject | str) -> str:
    if isinstance(error, str):
        return error
    return f"{error.message} ({error.code})" if error.code not in (None, "") else error.message
