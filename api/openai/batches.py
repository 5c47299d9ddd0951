"""`/v1/batches`: files of requests that are answered when there is time, within their window."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.access.caller import ANYBODY, Caller, caller_of
from api.body import AnyRequest, read_json_body
from api.openai.batch_bodies import ENDPOINTS
from api.openai.files import read_lifetime
from api.openai.query import read_limit, read_query
from api.openai.stored_objects import BatchList, BatchObject, LineErrorObject, LineErrors, list_fields
from api.openai.stored_operations import CANCEL_BATCH, GET_BATCH, LIST_BATCHES
from api.openai.stored_operations import create_batch as create_batch_operation
from api.validation import decode_body
from paddler.batches.batches import Batches
from paddler.batches.files import LIFETIME_S, Files
from paddler.batches.quota import NO_QUOTA, Quota, quota_of
from paddler.batches.records import Batch, LineError
from paddler.clock import Clock
from paddler.errors import FileNotFound, InvalidField
from paddler.ids import new_batch_id

MAX_WINDOW_S = 7 * 86_400
HALT_S = 86_400
"""How long behind the window of a batch its input is kept for whoever writes down what was not done."""
DEFAULT_PAGE = 20
MAX_PAGE = 100

_WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Key = Annotated[str, Meta(min_length=1, max_length=64)]
Metadata = Annotated[dict[Key, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]


class ExpiresAfter(Struct, forbid_unknown_fields=True):
    anchor: Literal["created_at"]
    seconds: int


class BatchRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


_decoder = msgspec.json.Decoder(BatchRequest)


def batch_routes(files: Files, batches: Batches, clock: Clock, quota: Quota = NO_QUOTA) -> list[HTTPRouteHandler]:
    @post("/v1/batches", status_code=200, operation=create_batch_operation(_decoder))
    async def create_batch(request: AnyRequest) -> BatchObject:
        asked = decode_body(await read_json_body(request), _decoder, {})
        caller = caller_of(request.scope)
        batch = read_batch(asked, int(clock.wall()), caller)
        try:
            record = await files.get(asked.input_file_id, tenant=caller.tenant)
        except FileNotFound as error:
            raise FileNotFound(error.message, param="input_file_id") from None
        if record.purpose != "batch":
            raise InvalidField("`input_file_id` must be a file of purpose `batch`.", param="input_file_id")
        if record.expires_at < batch.expires_at:
            raise InvalidField(
                "`input_file_id`: the file expires before the window of the batch is over; choose a shorter "
                "`completion_window`, or upload it with a longer `expires_after`.",
                param="input_file_id",
            )
        # To be halted at the end of its window it is read, too.
        await files.keep(record, batch.expires_at + HALT_S)
        await batches.create(batch, num_lines=record.num_lines, quota=quota_of(caller.limits, quota))
        return batch_object(batch)

    @get("/v1/batches", operation=LIST_BATCHES)
    async def list_batches(request: AnyRequest) -> BatchList:
        query = read_query(request, ("after", "limit"))
        limit = read_limit(query, DEFAULT_PAGE, MAX_PAGE)
        page = await batches.list(after=query.get("after"), limit=limit, tenant=caller_of(request.scope).tenant)
        return list_fields([batch_object(batch) for batch in page.items], has_more=page.has_more)

    @get("/v1/batches/{batch_id:str}", operation=GET_BATCH)
    async def get_batch(request: AnyRequest, batch_id: FromPath[str]) -> BatchObject:
        return batch_object(await batches.get(batch_id, tenant=caller_of(request.scope).tenant))

    @post("/v1/batches/{batch_id:str}/cancel", status_code=200, operation=CANCEL_BATCH)
    async def cancel_batch(request: AnyRequest, batch_id: FromPath[str]) -> BatchObject:
        return batch_object(await batches.cancel(batch_id, tenant=caller_of(request.scope).tenant))

    return [create_batch, list_batches, get_batch, cancel_batch]


def read_batch(asked: BatchRequest, now: int, caller: Caller = ANYBODY) -> Batch:
    """Raises `InvalidField`."""
    if asked.endpoint not in ENDPOINTS:
        raise InvalidField(f"`endpoint` must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
    lifetime_s = LIFETIME_S
    if (after := asked.output_expires_after) is not None:
        lifetime_s = read_lifetime("output_expires_after", after.anchor, after.seconds)
    return Batch(
        id=new_batch_id(),
        endpoint=asked.endpoint,
        input_file_id=asked.input_file_id,
        completion_window=asked.completion_window,
        created_at=now,
        expires_at=now + _window_s(asked.completion_window),
        metadata=asked.metadata,
        output_ttl_s=lifetime_s,
        tenant=caller.tenant,
        api_key="" if caller.account is None else caller.account.key.id,
    )


def _window_s(text: str) -> int:
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise InvalidField(
            "`completion_window` must be a number and one of s, m, h, d, such as `24h`; at most `7d`.",
            param="completion_window",
        )
    return seconds


def batch_object(batch: Batch) -> BatchObject:
    errors: LineErrors | None = None
    if batch.errors:
        errors = {"object": "list", "data": [_error_object(error) for error in batch.errors]}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "in_progress_at": batch.in_progress_at,
        "expires_at": batch.expires_at,
        "finalizing_at": batch.finalizing_at,
        "completed_at": batch.completed_at,
        "failed_at": batch.failed_at,
        "expired_at": batch.expired_at,
        "cancelling_at": batch.cancelling_at,
        "cancelled_at": batch.cancelled_at,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    }


def _error_object(error: LineError) -> LineErrorObject:
    return {"code": error.code, "line": error.line, "message": error.message, "param": error.param}
