"""Batches in tests: a worker that runs them in the test's own loop, and what their files say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.types import Batch

from paddler.batches import records
from paddler.batches.contents import RedisContents
from paddler.batches.folder import FolderContents
from paddler.clock import SystemClock
from paddler.ids import new_batch_id, new_file_id
from paddler.store.client import connect
from paddler.testing.waiting import wait_until
from workers.maintenance.batch_worker import BatchRunner, build_batch_worker
from workers.maintenance.main import worker_loop

ENDED = ("completed", "failed", "expired", "cancelled")


def new_batch() -> records.Batch:
    """As a balancer makes one, with a window of an hour."""
    now = int(SystemClock().wall())
    return records.Batch(
        id=new_batch_id(),
        endpoint="/v1/chat/completions",
        input_file_id=new_file_id(),
        completion_window="1h",
        created_at=now,
        expires_at=now + 3600,
        output_ttl_s=3600,
    )


class RunningWorker:
    """`kill` is what SIGKILL does to it, as far as Redis can tell: its batches stay its own until their lease ends."""

    def __init__(self, url: str, prefix: str, *, lease_ms: int = 1000, folder: Path | None = None) -> None:
        clock = SystemClock()
        self.store = connect(url, prefix)
        contents = RedisContents(self.store) if folder is None else FolderContents(folder, prefix, clock)
        self.runner = BatchRunner(self.store, contents, clock, lease_ms=lease_ms)
        self._tasks = [
            asyncio.create_task(worker_loop(lambda: build_batch_worker(self.store, self.runner), clock)),
            asyncio.create_task(self.runner.upkeep_loop()),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.runner.close()
        await self.store.close()

    async def kill(self) -> None:
        async def say_nothing(*_: Any) -> None:
            pass

        self.runner.batches.release = say_nothing  # pyright: ignore[reportAttributeAccessIssue]
        await self.stop()


@asynccontextmanager
async def batch_worker(
    url: str, prefix: str, *, lease_ms: int = 1000, folder: Path | None = None
) -> AsyncGenerator[RunningWorker]:
    worker = RunningWorker(url, prefix, lease_ms=lease_ms, folder=folder)
    try:
        yield worker
    finally:
        await worker.stop()


def chat_line(custom_id: str, text: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "default", "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def embedding_line(custom_id: str, text: str) -> dict[str, Any]:
    body = {"model": "default", "input": text}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}


def jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def submit(
    client: AsyncOpenAI, lines: Iterable[dict[str, Any]] | bytes, endpoint: Any = "/v1/chat/completions", **how: Any
) -> Batch:
    data = lines if isinstance(lines, bytes) else jsonl(lines)
    file = await client.files.create(file=("in.jsonl", data), purpose="batch")
    how = {"completion_window": "24h"} | how
    return await client.batches.create(input_file_id=file.id, endpoint=endpoint, **how)


async def until_ended(client: AsyncOpenAI, batch: Batch, *, timeout_s: float = 40) -> Batch:
    async def ended() -> Batch | None:
        found = await client.batches.retrieve(batch.id)
        return found if found.status in ENDED else None

    return await wait_until(ended, timeout_s=timeout_s, poll_s=0.05, what=f"{batch.id} ends")


async def until_done(client: AsyncOpenAI, batch: Batch, num_lines: int) -> Batch:
    """Until so many lines have been written down."""

    async def has_done() -> Batch | None:
        found = await client.batches.retrieve(batch.id)
        assert found.request_counts is not None
        return found if found.request_counts.completed >= num_lines else None

    return await wait_until(has_done, timeout_s=90, poll_s=0.02, what=f"{num_lines} lines of {batch.id} are done")


async def read_file(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none of a file that is not there."""
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.content.split(b"\n") if line]


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed
