"""`paddler batch` as its user meets it: the real command against a real balancer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from batch_harness import batch_worker, chat_line, jsonl
from fleet_harness import Fleet
from http_harness import HttpBalancer
from msgspec import Struct

from paddler.store.client import Store

pytestmark = pytest.mark.anyio


class Result(Struct):
    """`words` are those of stdout and stderr, without frames and breaks."""

    stdout: str
    words: str


Run = Callable[..., Awaitable[Result]]
COLUMNS = 80


@pytest.fixture
def batch(balancer: HttpBalancer) -> Run:
    """Runs the command. No line is longer than the terminal is wide."""

    async def run(*arguments: str, url: str = "", code: int = 0) -> Result:
        environment = os.environ | {"PADDLER_URL": url or balancer.url(), "COLUMNS": str(COLUMNS)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "paddler", "batch", *arguments), stdout=PIPE, stderr=PIPE, env=environment
        )
        output, errors = await process.communicate()
        result = Result(output.decode(), words(output.decode() + errors.decode()))
        assert process.returncode == code, result.words
        if "--json" not in arguments and arguments[0] != "fetch":
            assert max(map(len, result.stdout.split("\n"))) <= COLUMNS
        return result

    return run


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def write(folder: Path, data: bytes) -> str:
    path = folder / "in.jsonl"
    path.write_bytes(data)
    return str(path)


async def test_submit_waits_and_writes_both_files(batch: Run, fleet: Fleet, store: Store, tmp_path: Path) -> None:
    await fleet.agent(slots=2)
    lines = [chat_line(str(n), f"[[say={n}]]") for n in range(10)] + [chat_line("bad", "x " * 10_000)]
    output, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    async with batch_worker(store.url, store.prefix):
        found = await batch(
            *("submit", write(tmp_path, jsonl(lines)), "--metadata", "who=me", "--output", str(output)),
            *("--errors", str(errors), "--window", "1h", "--json"),
        )
    told = json.loads(found.stdout)
    assert (told["status"], told["request_counts"]) == ("completed", {"total": 11, "completed": 10, "failed": 1})
    assert told["metadata"] == {"who": "me"}
    assert {json.loads(line)["custom_id"] for line in output.read_text().splitlines()} == {str(n) for n in range(10)}
    assert [json.loads(line)["custom_id"] for line in errors.read_text().splitlines()] == ["bad"]
    fetched = await batch("fetch", told["id"])
    assert fetched.stdout == output.read_text()
    assert "completed" in (await batch("status", told["id"])).stdout
    assert told["id"] in (await batch("list")).stdout


async def test_submit_without_waiting_status_and_cancel(batch: Run, store: Store, tmp_path: Path) -> None:
    found = await batch("submit", write(tmp_path, jsonl([chat_line("a", "x")])), "--no-wait", "--json")
    batch_id = json.loads(found.stdout)["id"]
    assert "validating" in (await batch("status", batch_id)).stdout
    assert "it has no files before it ends" in (await batch("fetch", batch_id, code=1)).words
    assert "cancelling" in (await batch("cancel", batch_id)).stdout
    async with batch_worker(store.url, store.prefix):
        for _ in range(100):
            if "cancelled" in (await batch("status", batch_id)).stdout:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("it is not cancelled")
    assert "cancelled" in (await batch("cancel", batch_id, code=1)).words


async def test_mistakes_in_the_file_are_told_by_line(batch: Run, store: Store, tmp_path: Path) -> None:
    data = jsonl([chat_line("a", "x"), chat_line("a", "x"), chat_line("c", "x", temperatur=1)])
    async with batch_worker(store.url, store.prefix):
        found = await batch("submit", write(tmp_path, data), code=1)
    assert "line 2: `custom_id` 'a' is that of an earlier line" in found.words
    assert "line 3: Unknown field `temperatur`" in found.words


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("status", "batch_x"), "There is no batch"),
        (("submit", "{file}", "--window", "soon"), "completion_window"),
        (("submit", "{file}", "--endpoint", "/v1/moderations"), "endpoint"),
        (("submit", "{file}", "--metadata", "who"), "KEY=VALUE"),
    ],
)
async def test_what_is_refused_is_said_in_words(
    batch: Run, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    file = write(tmp_path, jsonl([chat_line("a", "x")]))
    code = 2 if "KEY" in told else 1
    found = await batch(*(part.replace("{file}", file) for part in arguments), code=code)
    assert told in found.words


async def test_a_balancer_that_is_not_there(batch: Run) -> None:
    found = await batch("list", url="http://127.0.0.1:1", code=1)
    assert "--url http://127.0.0.1:1 cannot be talked to" in found.words


async def test_a_file_whose_first_line_says_nothing(batch: Run, tmp_path: Path) -> None:
    found = await batch("submit", write(tmp_path, b"{}\n"), code=1)
    assert "say --endpoint" in found.words
