"""Batches from beginning to end with the official client, on scripted agents."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from batch_harness import (
    RunningWorker,
    batch_worker,
    chat_line,
    counts,
    embedding_line,
    jsonl,
    read_file,
    submit,
    until_done,
    until_ended,
)
from fleet_harness import Fleet
from http_harness import HttpBalancer, http_balancer
from openai import AsyncOpenAI, InternalServerError

from paddler.store.client import Store
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio


async def num_accepted(store: Store) -> int:
    """Requests that were submitted, each once."""
    return int(await store.redis.hget(store.pool("default").keys.counters(), "accepted") or 0)


async def test_a_batch_is_answered(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=4)
    lines = [chat_line(f"line-{n}", f"[[say=answer {n} ☃]]") for n in range(50)]
    async with batch_worker(store.url, store.prefix):
        made = await submit(client, lines, metadata={"who": "me"})
        assert (made.status, made.endpoint, made.metadata) == ("validating", "/v1/chat/completions", {"who": "me"})
        batch = await until_ended(client, made)
    assert batch.status == "completed"
    assert counts(batch) == (50, 50, 0)
    assert batch.error_file_id is None
    assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at, batch.expires_at)
    found = await read_file(client, batch.output_file_id)
    said = {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in found}
    assert said == {f"line-{n}": f"answer {n} ☃" for n in range(50)}
    one = found[0]
    assert one["response"]["status_code"] == 200
    assert one["error"] is None
    body = one["response"]["body"]
    assert body["id"] == f"chatcmpl-{one['response']['request_id']}"
    assert body["usage"]["completion_tokens"] > 0
    assert len({one["id"] for one in found}) == 50
    output = await client.files.retrieve(batch.output_file_id or "")
    assert output.purpose == "batch_output"
    assert output.filename == f"{batch.id}_output.jsonl"


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [("/v1/completions", {"prompt": "a [[say=done]]"}), ("/v1/responses", {"input": "a [[say=done]]"})],
)
async def test_a_batch_of_another_route_is_answered(
    endpoint: str, body: dict[str, Any], client: AsyncOpenAI, fleet: Fleet, store: Store
) -> None:
    await fleet.agent(slots=2)
    lines = [
        {"custom_id": str(n), "method": "POST", "url": endpoint, "body": {"model": "default"} | body} for n in range(3)
    ]
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, await submit(client, lines, endpoint))
    assert (batch.status, counts(batch)) == ("completed", (3, 3, 0))
    found = await read_file(client, batch.output_file_id)
    bodies = [one["response"]["body"] for one in found]
    said = [
        body["choices"][0]["text"] if "choices" in body else body["output"][0]["content"][0]["text"] for body in bodies
    ]
    assert said == ["done"] * 3


async def test_what_fails_is_in_the_error_file(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=2)
    lines = [
        chat_line("good", "[[say=good]]"),
        chat_line("long", "x " * 10_000),
        chat_line("form", "x", grammar='root ::= "a"'),
        chat_line("stranger", "x") | {"body": {"model": "stranger", "messages": [{"role": "user", "content": "x"}]}},
        chat_line("two", "[[say=two]]", n=2),
    ]
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, await submit(client, lines))
    assert batch.status == "completed"
    assert counts(batch) == (5, 2, 3)
    good = {one["custom_id"]: one for one in await read_file(client, batch.output_file_id)}
    assert [len(good[name]["response"]["body"]["choices"]) for name in ("good", "two")] == [1, 2]
    bad = {one["custom_id"]: one["response"] for one in await read_file(client, batch.error_file_id)}
    assert {name: one["status_code"] for name, one in bad.items()} == {"long": 400, "form": 400, "stranger": 404}
    assert bad["long"]["body"]["error"]["code"] == "context_length_exceeded"


async def test_embeddings(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=2)
    async with batch_worker(store.url, store.prefix):
        made = await submit(client, [embedding_line(str(n), f"text {n}") for n in range(5)], "/v1/embeddings")
        batch = await until_ended(client, made)
    assert counts(batch) == (5, 5, 0)
    found = {one["custom_id"]: one["response"]["body"] for one in await read_file(client, batch.output_file_id)}
    direct = await client.embeddings.create(model="default", input="text 3", encoding_format="float")
    assert found["3"]["data"][0]["embedding"] == pytest.approx(direct.data[0].embedding, abs=1e-6)
    assert found["3"]["object"] == "list"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", [("empty_file", None)]),
        (b"\n\n", [("empty_file", None)]),
        (
            jsonl([chat_line("a", "x")]) + b"{\n\n" + jsonl([chat_line("a", "x"), chat_line("b", "x", temperature=9)]),
            [("invalid_json_line", 2), ("duplicate_custom_id", 4), ("invalid_field", 5)],
        ),
        (jsonl([chat_line("a", "x"), embedding_line("b", "x")]), [("mismatched_url", 2)]),
    ],
)
async def test_a_mistake_fails_the_whole_batch(
    client: AsyncOpenAI, store: Store, data: bytes, expected: list[tuple[str, int | None]]
) -> None:
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, await submit(client, data))
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert [(error.code, error.line) for error in batch.errors.data or []] == expected
    assert await num_accepted(store) == 0


async def test_no_more_errors_than_anybody_reads(client: AsyncOpenAI, store: Store) -> None:
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, await submit(client, b"{\n" * 5000))
    assert batch.errors is not None
    assert len(batch.errors.data or []) == 100


async def test_a_batch_waits_for_agents(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    async with batch_worker(store.url, store.prefix):
        made = await submit(client, [chat_line(str(n), f"[[say={n}]]") for n in range(20)])
        keys = store.pool("default").keys
        await wait_until(lambda: store.redis.xlen(keys.demand_batch()), what="an autoscaler sees that something waits")
        assert await store.redis.xlen(keys.demand_batch()) <= 4, "but not the whole batch"
        await fleet.agent(slots=2)
        assert counts(await until_ended(client, made)) == (20, 20, 0)


async def test_cancelling_keeps_what_was_done(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=2, step_s=0.01)
    lines = [chat_line(f"q{n}", "[[tokens=10]]") for n in range(10)]
    lines += [chat_line(f"s{n}", "[[tokens=100000]]") for n in range(40)]
    async with batch_worker(store.url, store.prefix):
        made = await submit(client, lines)
        await until_done(client, made, 10)
        assert (await client.batches.cancel(made.id)).status == "cancelling"
        batch = await until_ended(client, made)
        assert batch.status == "cancelled"
        assert counts(batch) == (50, 10, 40)
        assert None not in (batch.cancelling_at, batch.cancelled_at)
        assert await store.redis.xlen(store.pool("default").keys.demand_batch()) == 0, "what ran is stopped"
    assert {one["custom_id"] for one in await read_file(client, batch.output_file_id)} == {f"q{n}" for n in range(10)}
    errors = await read_file(client, batch.error_file_id)
    assert {one["custom_id"] for one in errors} == {f"s{n}" for n in range(40)}
    assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}


async def test_a_batch_that_is_cancelled_before_it_begins(client: AsyncOpenAI, store: Store) -> None:
    made = await submit(client, [chat_line("a", "x")])
    await client.batches.cancel(made.id)
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, made)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelled", None, None)
    assert await num_accepted(store) == 0


async def test_the_window_ends(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=4, step_s=0.01)
    # The first four have a slot each, whatever the order in which they are served.
    lines = [chat_line("quick", "[[say=quick]]"), *(chat_line(f"slow{n}", "[[tokens=100000]]") for n in range(8))]
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, await submit(client, lines, completion_window="3s"))
    assert batch.status == "expired"
    assert batch.expired_at is not None
    assert batch.expires_at is not None
    assert batch.expired_at >= batch.expires_at
    assert counts(batch) == (9, 1, 8)
    errors = await read_file(client, batch.error_file_id)
    assert {one["custom_id"] for one in errors} == {f"slow{n}" for n in range(8)}
    assert {one["error"]["code"] for one in errors} == {"batch_expired"}


async def test_interactive_requests_go_first(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    """The only slot is busy with a batch of long lines: somebody who waits gets it after one line, not after all."""
    await fleet.agent(slots=1, step_s=0.005)
    lines = [chat_line(f"l{n}", "[[tokens=60]]") for n in range(20)]
    async with batch_worker(store.url, store.prefix):
        made = await submit(client, lines)
        await until_done(client, made, 2)
        for request_class in ("interactive", "normal"):
            before = counts(await client.batches.retrieve(made.id))[1]
            await client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": "[[say=now]]"}],
                extra_headers={"X-Request-Class": request_class},
            )
            # One that ran, and one whose end was not written down yet when the first count was taken.
            assert counts(await client.batches.retrieve(made.id))[1] - before <= 2
        await client.batches.cancel(made.id)
        await until_ended(client, made)


async def test_a_worker_is_killed_in_mid_batch(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=4, step_s=0.002)
    lines = [chat_line(f"line-{n}", f"[[say=answer {n}]]") for n in range(300)]
    made = await submit(client, lines)
    worker = RunningWorker(store.url, store.prefix)
    for done in (40, 120, 200):
        await until_done(client, made, done)
        await worker.kill()
        worker = RunningWorker(store.url, store.prefix)
    batch = await until_ended(client, made)
    await worker.stop()
    assert batch.status == "completed"
    assert counts(batch) == (300, 300, 0)
    found = await read_file(client, batch.output_file_id)
    assert Counter(one["custom_id"] for one in found) == Counter(f"line-{n}" for n in range(300))
    assert await num_accepted(store) == 300, "no line ran twice"


async def test_a_stopped_worker_gives_its_batch_to_the_next_at_once(
    client: AsyncOpenAI, fleet: Fleet, store: Store
) -> None:
    await fleet.agent(slots=2, step_s=0.01)
    made = await submit(client, [chat_line(str(n), "[[tokens=20]]") for n in range(30)])
    first = RunningWorker(store.url, store.prefix, lease_ms=60_000)
    await until_done(client, made, 4)
    async with batch_worker(store.url, store.prefix, lease_ms=60_000):
        await first.stop()
        assert counts(await until_ended(client, made)) == (30, 30, 0)
    assert await num_accepted(store) == 30


async def test_two_workers_share_batches_and_no_line(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=4)
    async with batch_worker(store.url, store.prefix), batch_worker(store.url, store.prefix):
        made = [await submit(client, [chat_line(str(n), f"[[say={n}]]") for n in range(30)]) for _ in range(4)]
        ended = await asyncio.gather(*(until_ended(client, batch) for batch in made))
    assert [counts(batch) for batch in ended] == [(30, 30, 0)] * 4
    assert await num_accepted(store) == 120


async def test_an_agent_dies_in_mid_batch(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    first = await fleet.agent(slots=4, step_s=0.005)
    made = await submit(client, [chat_line(str(n), f"[[say=answer {n}]]") for n in range(60)])
    async with batch_worker(store.url, store.prefix):
        await until_done(client, made, 10)
        await first.kill()
        await fleet.agent(slots=4)
        batch = await until_ended(client, made)
    assert counts(batch) == (60, 60, 0)


async def test_files_in_a_directory(fleet: Fleet, store: Store, tmp_path: Path, balancer: HttpBalancer) -> None:
    """All of it, with the contents in a folder."""
    await fleet.agent(slots=4, step_s=0.002)
    async with http_balancer(store.url, store.prefix, folder=tmp_path) as own, own.openai() as client:
        made = await submit(client, [chat_line(str(n), f"[[say={n}]]") for n in range(100)])
        worker = RunningWorker(store.url, store.prefix, folder=tmp_path)
        await until_done(client, made, 30)
        await worker.kill()
        async with batch_worker(store.url, store.prefix, folder=tmp_path):
            batch = await until_ended(client, made)
        found = await read_file(client, batch.output_file_id)
        assert Counter(one["custom_id"] for one in found) == Counter(map(str, range(100)))
        assert len(list(tmp_path.rglob("file-*"))) == 2
        async with balancer.openai() as elsewhere:
            with pytest.raises(InternalServerError, match="--file-store"):
                await elsewhere.files.content(batch.output_file_id or "")


async def test_five_thousand_lines(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=32)
    lines = (chat_line(f"line-{n}", f"[[say={n}]]") for n in range(5000))
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, await submit(client, lines), timeout_s=110)
    assert counts(batch) == (5000, 5000, 0)
    content = (await client.files.content(batch.output_file_id or "")).content
    assert {json.loads(line)["custom_id"] for line in content.split(b"\n")[:-1]} == {f"line-{n}" for n in range(5000)}


async def test_redis_restarts_in_mid_batch(valkey: RedisServer, prefix: str) -> None:
    """The run ends with its connections, and goes on from what was written down, attaching to what the agents still
    have."""
    server = RedisServer(valkey.binary, appendfsync="always")
    server.start()
    lines = [chat_line(str(n), f"[[say=answer {n}]]") for n in range(200)]
    try:
        async with (
            AsyncExitStack() as stack,
            http_balancer(server.url, prefix) as own,
            own.openai() as client,
            batch_worker(server.url, prefix),
        ):
            fleet = Fleet(server.url, prefix, stack)
            await fleet.agent(slots=4, step_s=0.005)
            made = await submit(client, lines)
            await until_done(client, made, 30)
            server.kill()
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start)
            patient = client.with_options(max_retries=10)
            batch = await until_ended(patient, made)
            assert counts(batch) == (200, 200, 0)
            found = await read_file(patient, batch.output_file_id)
            assert Counter(one["custom_id"] for one in found) == Counter(str(n) for n in range(200))
            assert await num_accepted(fleet.store) == 200, "no line ran twice"
            await fleet.close()
    finally:
        server.close()
