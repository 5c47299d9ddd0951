"""A form with a file (`multipart/form-data`) that is read as it arrives and never held whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import multipart
from litestar.exceptions import ClientException, HTTPException
from msgspec import Struct

from api.body import AnyRequest, UnsupportedMediaType
from paddler.errors import BodyTooLarge, InvalidField, PaddlerError

MAX_FIELD = 4096
MAX_PARTS = 32
FORM_BYTES = 64 * 1024
"""What a form may have beside its file."""
DISCARD_S = 5.0


class Form(Struct, frozen=True):
    """`filename` is None when no part is a file."""

    fields: dict[str, str]
    filename: str | None


async def read_form(
    request: AnyRequest, file_field: str, write: Callable[[bytes], Awaitable[None]], check: Callable[[int], None]
) -> Form:
    """Hand the bytes of the part `file_field` on to `write` in order, and return the rest. `check` gets about how many
    they will be, if the client says so, before any is read.

    Raises `ClientException` for what is no form, `InvalidField` for a part that does not belong there, `BodyTooLarge`
    for too much beside the file, and what `check` and `write` raise."""
    reader = _FormReader(file_field)
    body = request.stream()
    try:
        with multipart.PushMultipartParser(_boundary(request), max_segment_count=MAX_PARTS) as parser:
            if (length := request.content_length) is not None:
                check(max(0, length - FORM_BYTES))
            num_beside = 0
            async for piece in body:
                num_beside += len(piece)
                for event in parser.parse(piece):
                    if data := reader.take(event):
                        num_beside -= len(data)
                        await write(data)
                # Its length is not always told, and what is before, between and behind the parts is in no part.
                if num_beside > FORM_BYTES:
                    raise BodyTooLarge(f"The form has more than {FORM_BYTES} bytes beside its file.")
    except multipart.MultipartError as error:
        await discard(body)
        raise ClientException(f"The body is no valid multipart form: {error}.") from None
    except UnicodeDecodeError:
        await discard(body)
        raise ClientException("The form is not valid UTF-8.") from None
    except (PaddlerError, HTTPException):
        await discard(body)
        raise
    return Form(reader.fields, reader.filename)


async def discard(body: AsyncIterator[bytes]) -> None:
    """Read what a client still sends, for a while: one that is writing would see a broken connection, and not its
    error."""
    with contextlib.suppress(TimeoutError, HTTPException):
        async with asyncio.timeout(DISCARD_S):
            async for _ in body:
                pass


class _FormReader:
    """The parser's events, one at a time: a part, then its bytes, then None."""

    def __init__(self, file_field: str) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._file_field = file_field
        self._name = ""
        self._value = bytearray()

    def take(self, event: multipart.MultipartSegment | bytes | bytearray | None) -> bytes:
        """Bytes of the file, or none."""
        is_file = self._name == self._file_field
        if isinstance(event, multipart.MultipartSegment):
            self._begin(event)
        elif event is None:
            if not is_file:
                self.fields[self._name] = self._value.decode()
        elif is_file:
            return bytes(event)
        else:
            self._value += event
            if len(self._value) > MAX_FIELD:
                raise InvalidField(f"`{self._name[:64]}` has more than {MAX_FIELD} bytes.", param=self._name[:64])
        return b""

    def _begin(self, part: multipart.MultipartSegment) -> None:
        self._name, self._value = part.name or "", bytearray()
        shown = self._name[:64]
        if self._name == self._file_field:
            if self.filename is not None:
                raise InvalidField(f"`{shown}` is there twice.", param=shown)
            self.filename = part.filename or "file"
        elif part.filename or self._name in self.fields:
            raise InvalidField(f"`{shown}` is no file of this form, or is there twice.", param=shown)


def _boundary(request: AnyRequest) -> str:
    kind, options = request.content_type
    if kind.lower() != "multipart/form-data" or not options.get("boundary"):
        raise UnsupportedMediaType("Send a form with the file: Content-Type: multipart/form-data; boundary=...")
    return options["boundary"]
