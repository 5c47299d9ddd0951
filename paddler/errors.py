"""Every error a client, an operator or a caller can meet.

PaddlerError
├── RequestError                  the request itself is at fault
│   ├── InvalidField          400 invalid_field
│   ├── ContextExceeded       400 context_length_exceeded
│   ├── ImageDecodingFailed   400 image_decoding_failed
│   ├── MultimodalNotSupported 400 multimodal_not_supported
│   ├── Unauthorized          401 invalid_api_key
│   ├── Forbidden             403 insufficient_scope
│   ├── ModelNotFound         404 model_not_found
│   ├── RequestNotFound       404 request_not_found
│   ├── AgentNotFound         404 agent_not_found
│   ├── PoolNotFound          404 pool_not_found
│   ├── FileNotFound          404 file_not_found
│   ├── BatchNotFound         404 batch_not_found
│   ├── StateNotFound         404 state_not_found
│   ├── KeyNotFound           404 key_not_found
│   ├── PrefixNotFound        404 prefix_not_found
│   ├── Conflict              409 conflict
│   ├── VersionConflict       412 version_conflict
│   ├── BodyTooLarge          413 body_too_large
│   ├── HostNotAllowed        421 host_not_allowed
│   ├── IdempotencyMismatch   422 idempotency_mismatch
│   ├── RequestCancelled      499 cancelled
│   └── EmbeddingsOff         501 embeddings_off
└── ServiceError                  the fleet is at fault; the same request may succeed later
    ├── BufferFull            503 buffer_full
    ├── TenantBufferFull      429 tenant_buffer_full
    ├── RateLimited           429 rate_limit_exceeded
    ├── TooManyInFlight       429 too_many_in_flight
    ├── ImageFetchesFull      503 image_fetches_full
    ├── BudgetExhausted       429 daily_budget_exhausted
    ├── TenantStorageFull     413 tenant_storage_full
    ├── TenantBatchesFull     429 tenant_batches_full
    ├── TenantLinesFull       429 tenant_lines_full
    ├── StorageFull           507 storage_full
    ├── FileElsewhere         503 file_elsewhere
    ├── QueueUnavailable      503 queue_unavailable
    ├── ShuttingDown          503 shutting_down
    ├── StartTimeout          504 start_timeout
    ├── ItemTimeout           504 item_timeout
    ├── AgentsLost            502 agents_lost
    ├── RequestLost           503 request_lost
    ├── EngineFailed          500 engine_failed
    ├── UpstreamFailed        502 upstream_failed
    └── UnknownFailure        500 unknown

Each leaf has a stable `code`, an HTTP `status` and says whether a retry can help. `frame_of` and
`error_of` carry them through a journal.
"""

from __future__ import annotations

from typing import ClassVar

from paddler.wire.balancer import Failed


class PaddlerError(Exception):
    """Root of the tree. `param` names the request field at fault, if one is; `retry_after_s` is whole seconds; `limit`
    is how many requests may wait, where that is why."""

    code: ClassVar[str] = ""
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: int | None = None, limit: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.limit = limit


class RequestError(PaddlerError):
    """The request itself is at fault."""

    status = 400


class InvalidField(RequestError):
    """A field is missing, malformed, out of range or not supported."""

    code, status = "invalid_field", 400


class ContextExceeded(RequestError):
    """The prompt is longer than the model's context."""

    code, status = "context_length_exceeded", 400


class ImageDecodingFailed(RequestError):
    """An image is not what it should be, or too large."""

    code, status = "image_decoding_failed", 400


class MultimodalNotSupported(RequestError):
    """The agent has no projection for images."""

    code, status = "multimodal_not_supported", 400


class Unauthorized(RequestError):
    """No API key, or none that is known and good."""

    code, status = "invalid_api_key", 401


class Forbidden(RequestError):
    """The API key has not the scope that this route needs."""

    code, status = "insufficient_scope", 403


class ModelNotFound(RequestError):
    """No pool serves a model of this name."""

    code, status = "model_not_found", 404


class RequestNotFound(RequestError):
    """No request of this id is known; it may have ended too long ago."""

    code, status = "request_not_found", 404


class AgentNotFound(RequestError):
    """No agent of this id is in any pool; it registers under a new one after each loss of its lease."""

    code, status = "agent_not_found", 404


class PoolNotFound(RequestError):
    """No pool of this name has ever had an agent or a balancer."""

    code, status = "pool_not_found", 404


class FileNotFound(RequestError):
    """No file of this id is known; it may have expired or been deleted."""

    code, status = "file_not_found", 404


class BatchNotFound(RequestError):
    """No batch of this id is known; a batch is forgotten 30 days after its window."""

    code, status = "batch_not_found", 404


class StateNotFound(RequestError):
    """No desired state of this version is known; the last 100 are."""

    code, status = "state_not_found", 404


class KeyNotFound(RequestError):
    """No API key has this id."""

    code, status = "key_not_found", 404


class PrefixNotFound(RequestError):
    """The pool has no pinned prefix of this name."""

    code, status = "prefix_not_found", 404


class Conflict(RequestError):
    """What is asked for cannot be done in the state that this is in."""

    code, status = "conflict", 409


class VersionConflict(RequestError):
    """The desired state has another version than the change was made for."""

    code, status = "version_conflict", 412


class BodyTooLarge(RequestError):
    """The body exceeds `--max-body`."""

    code, status = "body_too_large", 413


class HostNotAllowed(RequestError):
    """The `Host` header names none of the names under which the service answers without API keys."""

    code, status = "host_not_allowed", 421


class IdempotencyMismatch(RequestError):
    """An `Idempotency-Key` was used before, for a request with another body."""

    code, status = "idempotency_mismatch", 422


class RequestCancelled(RequestError):
    """The request was cancelled before it ended."""

    code, status = "cancelled", 499


class EmbeddingsOff(RequestError):
    """The pool's desired state has `enable_embeddings` false."""

    code, status = "embeddings_off", 501


class ServiceError(PaddlerError):
    """The fleet is at fault; the same request may succeed later."""

    status = 503
    retryable = True


class BufferFull(ServiceError):
    """As many requests wait as `--max-buffered-requests` allows."""

    code, status = "buffer_full", 503


class TenantBufferFull(ServiceError):
    """One tenant has as many requests waiting as its share of the buffer allows."""

    code, status = "tenant_buffer_full", 429


class RateLimited(ServiceError):
    """The API key has used up its requests or tokens of this minute."""

    code, status = "rate_limit_exceeded", 429


class TooManyInFlight(ServiceError):
    """As many requests of the API key wait or run as it may have at once."""

    code, status = "too_many_in_flight", 429


class ImageFetchesFull(ServiceError):
    """The balancer fetches as many images by address as it does at once."""

    code, status = "image_fetches_full", 503


class BudgetExhausted(ServiceError):
    """The API key has used up its tokens of this day."""

    code, status, retryable = "daily_budget_exhausted", 429, False


class TenantStorageFull(ServiceError):
    """The files of one tenant have as many bytes as it may store."""

    code, status, retryable = "tenant_storage_full", 413, False


class TenantBatchesFull(ServiceError):
    """As many batches of one tenant have not ended as it may have."""

    code, status = "tenant_batches_full", 429


class TenantLinesFull(ServiceError):
    """The batches of one tenant that have not ended would have more lines than it may have."""

    code, status = "tenant_lines_full", 429


class StorageFull(ServiceError):
    """The files together have as many bytes as `--max-stored` allows."""

    code, status, retryable = "storage_full", 507, False


class FileElsewhere(ServiceError):
    """The contents of a file are kept where this process does not look: its `--file-store` differs."""

    code, status, retryable = "file_elsewhere", 503, False


class QueueUnavailable(ServiceError):
    """Redis cannot be reached or refuses writes."""

    code, status = "queue_unavailable", 503


class ShuttingDown(ServiceError):
    """This balancer is stopping."""

    code, status = "shutting_down", 503


class StartTimeout(ServiceError):
    """No slot became free within `--buffered-request-timeout`."""

    code, status = "start_timeout", 504


class ItemTimeout(ServiceError):
    """A running request was silent for `--inference-item-timeout`."""

    code, status = "item_timeout", 504


class AgentsLost(ServiceError):
    """Agent after agent was lost while working on this request; it may be what kills them."""

    code, status, retryable = "agents_lost", 502, False


class RequestLost(ServiceError):
    """Redis forgot the request, as a crash with `appendfsync everysec` may."""

    code, status = "request_lost", 503


class EngineFailed(ServiceError):
    """The engine failed on this request."""

    code, status = "engine_failed", 500


class UpstreamFailed(ServiceError):
    """The server that an agent fronts failed on this request, or cannot go on with it."""

    code, status = "upstream_failed", 502


class UnknownFailure(ServiceError):
    """A failure with a code that this version does not know; carries the sender's own words."""

    code, status = "unknown", 500


def leaves() -> dict[str, type[PaddlerError]]:
    """Every concrete error by its code."""
    found: dict[str, type[PaddlerError]] = {}
    todo: list[type[PaddlerError]] = [PaddlerError]
    while todo:
        cls = todo.pop()
        todo.extend(cls.__subclasses__())
        if cls.code:
            found[cls.code] = cls
    return found


def frame_of(error: PaddlerError) -> Failed:
    return Failed(error.code, error.message, error.status, error.retryable, error.param)


def error_of(frame: Failed) -> PaddlerError:
    """The exception a `Failed` frame stands for; an unknown code becomes `UnknownFailure`."""
    return leaves().get(frame.code, UnknownFailure)(frame.message, param=frame.param)
