"""`/v1/files` and `/v1/batches` with the official client; what runs batches is in `tests/batches`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_harness import MAX_BODY, MAX_FILE, HttpBalancer
from openai import APIStatusError, AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from openai.types import FileObject

from paddler.batches.batches import Batches
from paddler.clock import SystemClock
from paddler.store.client import Store
from paddler.store.keys import FileKeys, batch_jobs_key
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

DAY_S = 86_400
LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "default", "messages": [{"role": "user", "content": "hello"}]},
}
DATA = json.dumps(LINE).encode() + b"\n"


@pytest.fixture
async def client(balancer: HttpBalancer) -> AsyncIterator[AsyncOpenAI]:
    async with balancer.openai() as client:
        yield client


async def upload(client: AsyncOpenAI, data: bytes = DATA, name: str = "in.jsonl", **how: Any) -> FileObject:
    return await client.files.create(file=(name, data), purpose="batch", **how)


async def forget_batches(store: Store) -> None:
    """No worker is there to end them."""
    batches = Batches(store, SystemClock())
    for name in await store.redis.hkeys(FileKeys(store.prefix).open_batches()):
        await batches.take(name.decode(), "test", lease_ms=1000)
        await batches.end(name.decode(), "test", lambda batch: batch)
    await store.redis.delete(batch_jobs_key(store.prefix))


async def test_a_files_life(client: AsyncOpenAI) -> None:
    data = DATA * 6000
    assert len(data) > MAX_BODY, "a file is not bounded as other bodies are"
    made = await upload(client, data, "../dir/näme ☃.jsonl")
    assert (made.bytes, made.purpose, made.object, made.status) == (len(data), "batch", "file", "processed")
    assert made.filename == "näme ☃.jsonl"
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 30 * DAY_S
    assert await client.files.retrieve(made.id) == made
    assert (await client.files.content(made.id)).content == data
    async with client.files.with_streaming_response.content(made.id) as answer:
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "n%C3%A4me" in answer.headers["content-disposition"]
    deleted = await client.files.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    for gone in (client.files.retrieve(made.id), client.files.content(made.id), client.files.delete(made.id)):
        with pytest.raises(NotFoundError):
            await gone


async def test_a_file_expires(client: AsyncOpenAI, store: Store) -> None:
    made = await upload(client, expires_after={"anchor": "created_at", "seconds": 3600})
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 3600
    keys = FileKeys(store.prefix)
    for key in (keys.file(made.id), keys.chunk(made.id, 0)):
        assert 3590 < await store.redis.ttl(key) <= 3600


async def test_an_empty_file(client: AsyncOpenAI) -> None:
    made = await upload(client, b"")
    assert made.bytes == 0
    assert (await client.files.content(made.id)).content == b""


async def test_a_list_has_pages(client: AsyncOpenAI) -> None:
    made: list[str] = []
    for number in range(5):
        made.append((await upload(client, name=f"{number}.jsonl")).id)
        await asyncio.sleep(0.002)
    assert [file.id async for file in client.files.list(limit=2)] == made[::-1]
    assert [file.id async for file in client.files.list(limit=2, order="asc")] == made
    page = await client.files.list(limit=2, after=made[3])
    assert ([file.id for file in page.data], page.has_more) == ([made[2], made[1]], True)
    assert [file.id async for file in client.files.list(purpose="batch_output")] == []
    with pytest.raises(NotFoundError):
        await client.files.list(after="file-nothing")
    for query, param in (("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("offset=1", "offset")):
        with pytest.raises(BadRequestError) as refused:
            await client.get(f"/files?{query}", cast_to=httpx.Response)
        assert refused.value.param == param


async def refusal(balancer: HttpBalancer, **how: Any) -> tuple[int, str | None]:
    async with balancer.http() as http:
        answer = await http.post("/v1/files", **how)
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["param"]


async def test_forms_that_are_refused(balancer: HttpBalancer, store: Store) -> None:
    file = {"file": ("a", DATA)}
    anchor, seconds = "expires_after[anchor]", "expires_after[seconds]"
    batch = {"purpose": "batch"}
    for fields, param in (
        ({}, "purpose"),
        ({"purpose": "assistants"}, "purpose"),
        (batch | {"colour": "blue"}, "colour"),
        (batch | {anchor: "created_at"}, "expires_after"),
        (batch | {anchor: "used_at", seconds: "3600"}, "expires_after.anchor"),
        (batch | {anchor: "created_at", seconds: "3599"}, "expires_after.seconds"),
        (batch | {anchor: "created_at", seconds: "1h"}, "expires_after.seconds"),
        (batch | {"purpose": "x" * 5000}, "purpose"),
    ):
        assert await refusal(balancer, data=fields, files=file) == (400, param)
    assert await refusal(balancer, data=batch, files={"attachment": ("a", DATA)}) == (400, "attachment")
    assert await refusal(balancer, data=batch, files=[("file", ("a", DATA)), ("file", ("b", DATA))]) == (400, "file")
    assert (await refusal(balancer, json={}))[0] == 415
    form = {"content-type": "multipart/form-data; boundary=b"}
    assert (await refusal(balancer, content=b"no form at all", headers=form))[0] == 400
    cut = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\ndata'
    assert (await refusal(balancer, content=cut, headers=form))[0] == 400
    assert (await refusal(balancer, content=b"x", headers={"content-type": "multipart/form-data"}))[0] == 415
    pattern = f"{store.prefix}:file*"
    left = [key async for key in store.redis.scan_iter(pattern)]
    assert left == [], "nothing of them is kept"


async def test_a_file_that_is_too_large(balancer: HttpBalancer, store: Store) -> None:
    data = b"x" * (MAX_FILE + 1)
    files = {"file": ("a", data)}
    assert await refusal(balancer, data={"purpose": "batch"}, files=files) == (413, "file")

    async def unannounced() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(5):
            yield b"x" * (1 << 20)

    form = {"content-type": "multipart/form-data; boundary=b"}
    assert await refusal(balancer, content=unannounced(), headers=form) == (413, "file")
    assert [key async for key in store.redis.scan_iter(f"{store.prefix}:file*")] == []


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_a_form_with_too_much_beside_its_file(balancer: HttpBalancer, where: str) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        if where == "before":
            for _ in range(3):
                yield b"x" * 50_000
        yield b'\r\n--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch'
        yield b'\r\n--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\ndata\r\n--b--\r\n'
        for _ in range(3):
            yield b"x" * 50_000

    form = {"content-type": "multipart/form-data; boundary=b"}
    assert (await refusal(balancer, content=unannounced(), headers=form))[0] == 413


async def test_a_client_that_leaves_in_mid_upload_leaves_nothing(balancer: HttpBalancer, store: Store) -> None:
    address = httpx.URL(balancer.url())
    _, writer = await asyncio.open_connection(address.host, address.port)
    head = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    writer.write(f"{head}content-length: 3000000\r\n\r\n".encode())
    writer.write(b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 1_000_000)
    await writer.drain()

    async def num_keys() -> int:
        return len([key async for key in store.redis.scan_iter(f"{store.prefix}:file*")])

    await wait_until(num_keys, what="the upload has begun")
    writer.close()

    async def nothing_is_left() -> bool:
        return await num_keys() == 0

    await wait_until(nothing_is_left, timeout_s=5, what="it is removed")


async def test_a_batch_is_shown(client: AsyncOpenAI, store: Store) -> None:
    file = await upload(client)
    made = await client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"who": "me"},
        extra_body={"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
    )
    assert (made.object, made.status, made.input_file_id) == ("batch", "validating", file.id)
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == DAY_S
    assert made.request_counts is not None
    assert made.request_counts.total == 0
    assert await client.batches.retrieve(made.id) == made
    with pytest.raises(ConflictError):
        await client.files.delete(file.id)
    others = [
        await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        for _ in range(2)
    ]
    assert {batch.id async for batch in client.batches.list(limit=2)} == {made.id, *(one.id for one in others)}
    cancelled = await client.batches.cancel(made.id)
    assert (cancelled.status, cancelled.cancelling_at is not None) == ("cancelling", True)
    await forget_batches(store)
    await client.files.delete(file.id)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"input_file_id": "file-unknown"}, 404, "input_file_id"),
        ({"endpoint": "/v1/moderations"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "8d"}, 400, "completion_window"),
        ({"completion_window": "3h"}, 400, "input_file_id"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
        ({"metadata": {"k": 1}}, 400, "metadata[...]"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "output_expires_after.seconds"),
        ({"priority": "high"}, 400, "priority"),
    ],
)
async def test_batches_that_are_refused(client: AsyncOpenAI, fields: dict[str, Any], status: int, param: str) -> None:
    file = await upload(client, expires_after={"anchor": "created_at", "seconds": 7200})
    body = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "1h"} | fields
    with pytest.raises(APIStatusError) as refused:
        await client.post("/batches", cast_to=httpx.Response, body=body)
    assert (refused.value.status_code, refused.value.param) == (status, param)


async def test_a_batch_that_is_not_there(client: AsyncOpenAI) -> None:
    for call in (client.batches.retrieve("batch_x"), client.batches.cancel("batch_x"), client.batches.list(after="x")):
        with pytest.raises(NotFoundError):
            await call
