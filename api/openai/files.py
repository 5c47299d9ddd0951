"""`/v1/files`: the inputs and outputs of batches."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from urllib.parse import quote

from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from api.access.caller import caller_of
from api.body import AnyRequest
from api.connection import Headers, Outgoing, run_while_connected
from api.forms import discard, read_form
from api.openai.query import read_choice, read_limit, read_query
from api.openai.stored_objects import DeletedFile, FileList, FileObject, list_fields
from api.openai.stored_operations import CREATE_FILE, DELETE_FILE, GET_CONTENT, GET_FILE, LIST_FILES
from paddler.batches.files import LIFETIME_S, Files, told_as_unavailable
from paddler.batches.quota import NO_QUOTA, Quota, quota_of
from paddler.batches.records import FileRecord
from paddler.clock import Clock
from paddler.errors import InvalidField, PaddlerError

MAX_PAGE = 10_000
MAX_NAME = 255
LEAST_LIFETIME_S = 3600

_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")


def file_routes(files: Files, clock: Clock, quota: Quota = NO_QUOTA) -> list[HTTPRouteHandler]:
    # Its own limit, which counts what has arrived: `Upload` refuses what is too large.
    @post("/v1/files", status_code=200, request_max_body_size=None, operation=CREATE_FILE)
    async def create_file(request: AnyRequest) -> FileObject:
        caller = caller_of(request.scope)
        try:
            upload = await files.begin(tenant=caller.tenant, quota=quota_of(caller.limits, quota))
        except PaddlerError:
            await discard(request.stream())
            raise
        is_done = False
        try:
            form = await read_form(request, "file", upload.write, upload.check)
            lifetime_s = _read_fields(form.fields)
            if form.filename is None:
                raise InvalidField("`file` is required.", param="file")
            name = _cleaned(form.filename)
            record = await files.finish(upload, filename=name, purpose="batch", lifetime_s=lifetime_s)
            is_done = True
        finally:
            if not is_done:
                await upload.abort()
        return file_object(record)

    @get("/v1/files", operation=LIST_FILES)
    async def list_files(request: AnyRequest) -> FileList:
        query = read_query(request, ("after", "limit", "order", "purpose"))
        order = read_choice(query, "order", ("asc", "desc"))
        page = await files.list(
            after=query.get("after"),
            limit=read_limit(query, MAX_PAGE, MAX_PAGE),
            newest_first=order != "asc",
            purpose=query.get("purpose"),
            tenant=caller_of(request.scope).tenant,
        )
        return list_fields([file_object(record) for record in page.items], has_more=page.has_more)

    @get("/v1/files/{file_id:str}", operation=GET_FILE)
    async def get_file(request: AnyRequest, file_id: FromPath[str]) -> FileObject:
        return file_object(await files.get(file_id, tenant=caller_of(request.scope).tenant))

    @delete("/v1/files/{file_id:str}", status_code=200, operation=DELETE_FILE)
    async def delete_file(request: AnyRequest, file_id: FromPath[str]) -> DeletedFile:
        await files.delete(file_id, tenant=caller_of(request.scope).tenant)
        return {"id": file_id, "object": "file", "deleted": True}

    @get("/v1/files/{file_id:str}/content", operation=GET_CONTENT)
    async def get_content(request: AnyRequest, file_id: FromPath[str]) -> ASGIApp:
        record = await files.get(file_id, tenant=caller_of(request.scope).tenant)
        return FileAnswer(record, files.read(record), clock)

    return [create_file, list_files, get_file, delete_file, get_content]


class FileAnswer:
    """The contents of a file, a piece at a time, as fast as the client reads."""

    def __init__(self, record: FileRecord, pieces: AsyncGenerator[bytes], clock: Clock) -> None:
        self._record = record
        self._pieces = pieces
        self._clock = clock

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        async with contextlib.aclosing(self._pieces):
            await run_while_connected(self._answer(out), receive, out, self._clock)

    async def _answer(self, out: Outgoing) -> None:
        left = self._record.num_bytes
        headers: Headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % left),
            (b"content-disposition", b"attachment; filename*=UTF-8''" + quote(self._record.filename).encode()),
        ]
        if not left:
            await out.start(200, headers)
            await out.write(b"", last=True)
        # What is wrong with the first piece is told by the status; later the connection ends short of the length.
        while left:
            with told_as_unavailable():
                piece = await anext(self._pieces)
            if not out.is_started:
                await out.start(200, headers)
            left -= len(piece)
            await out.write(piece, last=not left)


def file_object(record: FileRecord) -> FileObject:
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.num_bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }


def read_lifetime(param: str, anchor: str, seconds: int) -> int:
    """Of `expires_after`. Raises `InvalidField`."""
    if anchor != "created_at":
        raise InvalidField(f"`{param}.anchor` must be `created_at`.", param=f"{param}.anchor")
    if not LEAST_LIFETIME_S <= seconds <= LIFETIME_S:
        raise InvalidField(
            f"`{param}.seconds` must be from {LEAST_LIFETIME_S} to {LIFETIME_S}.", param=f"{param}.seconds"
        )
    return seconds


def _read_fields(fields: Mapping[str, str]) -> int:
    """The lifetime of a file, in seconds."""
    for name in fields:
        if name not in _FIELDS:
            raise InvalidField(f"Unknown field `{name[:64]}`; leave it out.", param=name[:64])
    purpose = fields.get("purpose")
    if purpose is None:
        raise InvalidField("`purpose` is required.", param="purpose")
    if purpose != "batch":
        raise InvalidField(
            f"`purpose` must be `batch`: files are only kept for batches here, not for {purpose[:32]!r}.",
            param="purpose",
        )
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return LIFETIME_S
    if anchor is None or seconds is None:
        raise InvalidField("`expires_after` needs `anchor` and `seconds`.", param="expires_after")
    is_number = seconds.isascii() and seconds.isdecimal() and len(seconds) < 10
    return read_lifetime("expires_after", anchor, int(seconds) if is_number else 0)


def _cleaned(filename: str) -> str:
    """Its last part, as a name that can be shown: whatever path the client has it under is none of ours."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(one if one.isprintable() else "_" for one in name)[:MAX_NAME] or "file"
