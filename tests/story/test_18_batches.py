"""A batch is a file of requests that are answered when there is time: it survives whatever dies meanwhile, and nobody
who waits for an answer waits for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from batch_harness import chat_line, counts, embedding_line, jsonl, read_file, submit, until_done, until_ended
from openai import AsyncOpenAI
from story_harness import SCRIPTED, CommandFleet, Queue
from up_harness import Up

from paddler.store.client import connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

QUESTIONS = ["Name a colour.", "Name an animal.", "Say hello.", "What is snow?", "Name a planet.", "Count to three."]


async def test_with_the_starter_model(up: Up, client: AsyncOpenAI) -> None:
    """`paddler up` has all that a batch needs: the official client uploads a file, has it answered, and reads what came
    out. The same goes for embeddings."""
    made = await submit(client, [chat_line(text, text, max_tokens=6) for text in QUESTIONS])
    batch = await until_ended(client, made, timeout_s=90)
    assert (batch.status, counts(batch)) == ("completed", (6, 6, 0))
    answers = {one["custom_id"]: one["response"]["body"] for one in await read_file(client, batch.output_file_id)}
    assert answers.keys() == set(QUESTIONS)
    for answer in answers.values():
        assert answer["choices"][0]["message"]["content"]
        assert 0 < answer["usage"]["completion_tokens"] <= 6

    lines = [embedding_line(text, text) for text in QUESTIONS]
    batch = await until_ended(client, await submit(client, lines, "/v1/embeddings"), timeout_s=90)
    assert (batch.status, counts(batch)) == ("completed", (6, 6, 0))
    found = {one["custom_id"]: one["response"]["body"] for one in await read_file(client, batch.output_file_id)}
    direct = await client.embeddings.create(model="default", input=QUESTIONS[0], encoding_format="float")
    in_batch, alone = found[QUESTIONS[0]]["data"][0]["embedding"], direct.data[0].embedding
    assert sum(a * b for a, b in zip(in_batch, alone, strict=True)) == pytest.approx(1, abs=1e-3)


async def test_from_a_shell(up: Up, tmp_path: Path) -> None:
    """One command uploads a file, waits and writes the answers."""
    (tmp_path / "in.jsonl").write_bytes(jsonl(chat_line(text, text, max_tokens=3) for text in QUESTIONS[:2]))
    command = [sys.executable, "-P", "-m", "paddler", "batch", "submit", "in.jsonl", "-o", "out.jsonl"]
    done = await asyncio.to_thread(
        subprocess.run, [*command, "--url", up.openai_url], cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["custom_id"] for line in lines} == set(QUESTIONS[:2])


async def test_the_worker_of_up_is_killed_in_mid_batch(up: Up, client: AsyncOpenAI) -> None:
    """It is started again and goes on once the lease of the dead one is over."""
    made = await submit(client, [chat_line(str(n), f"Say {n}.", max_tokens=4) for n in range(24)])
    await until_done(client, made, 3)
    os.kill(up.pids()["worker"], signal.SIGKILL)
    batch = await until_ended(client, made, timeout_s=120)
    assert (batch.status, counts(batch)) == ("completed", (24, 24, 0))


async def test_every_process_dies_once(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue, valkey: RedisServer
) -> None:
    """Worker and agent are killed in mid-batch, and others take their places: each line is in the file once, and no
    line was run twice."""
    slow = (*SCRIPTED, "--slots", "4", "--scripted-step", "5")
    first = await fleet.agent("one", *slow)
    store = connect(valkey.url, fleet.prefix)
    counters = store.pool("default").keys.counters()

    async def num_accepted() -> int:
        return int(await store.redis.hget(counters, "accepted") or 0)

    before = await num_accepted()
    made = await submit(patient, [chat_line(str(n), f"[[say=answer {n}]]") for n in range(200)])
    await until_done(patient, made, 20)
    fleet.kill_worker()
    fleet.start_worker()
    await until_done(patient, made, 80)
    first.kill()
    await fleet.agent("two", *slow)
    batch = await until_ended(patient, made, timeout_s=90)
    assert (batch.status, counts(batch)) == ("completed", (200, 200, 0))
    found = await read_file(patient, batch.output_file_id)
    assert Counter(one["custom_id"] for one in found) == Counter(str(n) for n in range(200))
    said = {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in found}
    assert said == {str(n): f"answer {n}" for n in range(200)}
    assert await num_accepted() - before == 200
    await wait_until(fleet_queue.is_empty)
    await store.close()
