"""The arq job of a batch: how a worker is told to run it, and that again when the worker that did so is lost.

arq gives a job to one worker and keeps it from others for as long as it may run at most, which is days: a lost
worker's job would come back only then. So each run is a job of its own, numbered, and the one before is forgotten as
the next is enqueued. Which run has the batch is decided by `Batches.take`, not by arq: a job that comes late finds it
taken or ended.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import msgspec
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix

from paddler.batches.records import Batch
from paddler.store.client import Store
from paddler.store.keys import batch_jobs_key

FUNCTION = "batch"
MAX_RUN_S = 8 * 86_400
"""Longer than any window."""


def arq_redis(connection_pool: Any, queue_name: str) -> ArqRedis:
    """With MessagePack where arq would pickle: what Redis holds is not to be executed."""
    return ArqRedis(
        connection_pool,
        job_serializer=msgspec.msgpack.encode,
        job_deserializer=decode_job,
        default_queue_name=queue_name,
        expires_extra_ms=MAX_RUN_S * 1000,
    )


def decode_job(data: bytes) -> dict[str, Any]:
    return msgspec.msgpack.decode(data, type=dict[str, Any])


class BatchJobs:
    def __init__(self, store: Store) -> None:
        self._prefix = store.prefix
        self._queue = batch_jobs_key(store.prefix)
        self._arq = arq_redis(store.redis.connection_pool, self._queue)

    async def enqueue(self, batch: Batch) -> bool:
        """The next run of a batch that nobody has. False when it is on its way already. Raises what Redis raises."""
        job_id = self._job_id(batch.id, batch.runs)
        job = await self._arq.enqueue_job(FUNCTION, batch.id, _job_id=job_id, _expires=timedelta(seconds=MAX_RUN_S))
        if job is not None and batch.runs:
            await self._forget(self._job_id(batch.id, batch.runs - 1))
        return job is not None

    async def give_again(self, batch: Batch) -> None:
        """If a worker has been given its next run, another gets it, too. Raises what Redis raises."""
        redis = cast(Any, self._arq)
        await redis.delete(in_progress_key_prefix + self._job_id(batch.id, batch.runs))

    async def _forget(self, job_id: str) -> None:
        pipe = cast(Any, self._arq.pipeline(transaction=False))
        pipe.zrem(self._queue, job_id)
        pipe.delete(job_key_prefix + job_id, in_progress_key_prefix + job_id, retry_key_prefix + job_id)
        await pipe.execute()

    def _job_id(self, batch_id: str, run: int) -> str:
        # The prefix, because arq's own keys have none.
        return f"{self._prefix}:{batch_id}:{run}"
