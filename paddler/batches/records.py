"""What is stored of a file and of a batch. Times are seconds since the epoch.

Records are MessagePack maps: an older process skips fields it does not know, so new ones have defaults.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from paddler.tenants.records import ANONYMOUS

Purpose = Literal["batch", "batch_output"]

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
ENDED: tuple[Status, ...] = ("failed", "completed", "expired", "cancelled")

MAX_LINES = 50_000
"""Requests of a batch, as at OpenAI."""


class FileRecord(Struct, frozen=True, kw_only=True):
    """`place` says where the contents are: `redis`, or the URL of a directory; `tenant` whose it is; `num_lines` counts
    its lines, 0 where an older version has not."""

    id: str
    num_bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Purpose
    place: str
    tenant: str = ANONYMOUS
    num_lines: int = 0


class LineError(Struct, frozen=True):
    """Why a batch failed. `line` counts from 1; None is about the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Part(Struct, frozen=True):
    """What one run has written of an output or error file, and how much of that counts."""

    file_id: str
    num_bytes: int


class Batch(Struct, frozen=True, kw_only=True):
    """A batch and how far it has got.

    `output_parts` and `error_parts` are what counts of the two files: what a run wrote behind that is written again.
    `completed` lines are in the output file, `failed` in the error file, `not_run` of which were not tried. `runs` is
    how many workers have taken it, `fruitless` how many of the last did nothing, `troubles` how many of
    the last ended early for whatever reason. `pools` is which pool each model name
    stands for, fixed when it is first met: a line's request id begins with it. `tenant` is whose it is, and
    `api_key` the id of the key whose usage its lines are."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    output_ttl_s: int
    status: Status = "validating"
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    errors: tuple[LineError, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    not_run: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    runs: int = 0
    fruitless: int = 0
    pools: dict[str, str] = {}
    output_parts: tuple[Part, ...] = ()
    error_parts: tuple[Part, ...] = ()
    troubles: int = 0
    tenant: str = ANONYMOUS
    api_key: str = ""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


_encoder = msgspec.msgpack.Encoder()
_file_decoder = msgspec.msgpack.Decoder(FileRecord)
_batch_decoder = msgspec.msgpack.Decoder(Batch)


def encode(record: FileRecord | Batch) -> bytes:
    return _encoder.encode(record)


def decode_file(data: bytes) -> FileRecord:
    return _file_decoder.decode(data)


def decode_batch(data: bytes) -> Batch:
    return _batch_decoder.decode(data)
