"""What the routes of files and batches say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from api.body import UnsupportedMediaType
from api.openai.objects import ErrorAnswer
from api.openai.stored_objects import BatchList, BatchObject, DeletedFile, FileList, FileObject
from api.operation import JSON, Answer, Operation, Parameter
from api.submitting import BODY_ERRORS, ERROR_HEADERS
from paddler.errors import (
    BatchNotFound,
    BodyTooLarge,
    Conflict,
    FileElsewhere,
    FileNotFound,
    InvalidField,
    QueueUnavailable,
    StorageFull,
    TenantBatchesFull,
    TenantLinesFull,
    TenantStorageFull,
)

FORM = "multipart/form-data"
BYTES = "application/octet-stream"

FileForm = TypedDict(
    "FileForm",
    {
        "file": Annotated[str, Meta(extra_json_schema={"contentMediaType": BYTES})],
        "purpose": Literal["batch"],
        "expires_after[anchor]": NotRequired[Literal["created_at"]],
        "expires_after[seconds]": NotRequired[str],
    },
)
"""A form is read as it arrives, by `api.forms`: this decoder only says what its parts are."""

_FILE_ID = Parameter(name="file_id", where="path", description="`id` of the file.")
_BATCH_ID = Parameter(name="batch_id", where="path", description="`id` of the batch.")
_AFTER = Parameter(name="after", where="query", description="`id` of the last one of the page before.")
_OF_ALL: dict[str, Any] = {"error_body": ErrorAnswer, "error_headers": ERROR_HEADERS}
_FILES: dict[str, Any] = {"tag": "files", **_OF_ALL}
_BATCHES: dict[str, Any] = {"tag": "batches", **_OF_ALL}
_NO_FILE = (FileNotFound, QueueUnavailable)
_NO_BATCH = (BatchNotFound, QueueUnavailable)


def _limit(most: int) -> Parameter:
    type_ = Annotated[int, Meta(ge=1, le=most)]
    return Parameter(name="limit", type=type_, where="query", description="How many, at most.")


def _answer(type_: Any, description: str) -> dict[int, Answer]:
    return {200: Answer(description=description, content={JSON: type_})}


CREATE_FILE = Operation(
    summary="Keep the input of a batch.",
    request=msgspec.json.Decoder(FileForm),
    request_media=FORM,
    answers=_answer(FileObject, "The file."),
    errors=(InvalidField, BodyTooLarge, UnsupportedMediaType, TenantStorageFull, StorageFull, QueueUnavailable),
    **_FILES,
)
LIST_FILES = Operation(
    summary="Files, in pages.",
    parameters=(
        _AFTER,
        _limit(10_000),
        Parameter(name="order", type=Literal["asc", "desc"], where="query", description="By time; newest first: desc."),
        Parameter(name="purpose", where="query", description="Only those of this purpose."),
    ),
    answers=_answer(FileList, "A page of them."),
    errors=(InvalidField, *_NO_FILE),
    **_FILES,
)
GET_FILE = Operation(
    summary="A file.", parameters=(_FILE_ID,), answers=_answer(FileObject, "The file."), errors=_NO_FILE, **_FILES
)
DELETE_FILE = Operation(
    summary="Forget a file.",
    parameters=(_FILE_ID,),
    answers=_answer(DeletedFile, "It is gone."),
    errors=(Conflict, FileElsewhere, *_NO_FILE),
    **_FILES,
)
GET_CONTENT = Operation(
    summary="What is in a file.",
    parameters=(_FILE_ID,),
    answers={
        200: Answer(
            description="Its bytes.",
            content={BYTES: str},
            headers=(Parameter(name="content-disposition", description="Its name.", is_required=True),),
        )
    },
    errors=(FileElsewhere, *_NO_FILE),
    **_FILES,
)


def create_batch(request: msgspec.json.Decoder[Any]) -> Operation:
    """`request` reads its body."""
    return Operation(
        summary="Answer the requests of a file when there is time.",
        request=request,
        answers=_answer(BatchObject, "The batch."),
        errors=(*BODY_ERRORS, FileNotFound, TenantBatchesFull, TenantLinesFull, StorageFull, QueueUnavailable),
        **_BATCHES,
    )


LIST_BATCHES = Operation(
    summary="Batches, the newest first, in pages.",
    parameters=(_AFTER, _limit(100)),
    answers=_answer(BatchList, "A page of them."),
    errors=(InvalidField, *_NO_BATCH),
    **_BATCHES,
)
GET_BATCH = Operation(
    summary="A batch.",
    parameters=(_BATCH_ID,),
    answers=_answer(BatchObject, "The batch."),
    errors=_NO_BATCH,
    **_BATCHES,
)
CANCEL_BATCH = Operation(
    summary="Stop a batch; what is done stays.",
    parameters=(_BATCH_ID,),
    answers=_answer(BatchObject, "The batch."),
    errors=(Conflict, *_NO_BATCH),
    **_BATCHES,
)
