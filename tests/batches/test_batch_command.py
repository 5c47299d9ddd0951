"""`paddler batch` as its user meets it: the real command against a real balancer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

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
        if not {"--json", "-"} & set(arguments) and arguments[0] != "fetch":
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


@contextlib.asynccontextmanager
async def sick_balancer(*answers: tuple[int, bytes] | None) -> AsyncGenerator[str]:
    """Its URL; it gives these answers one after the other, the last again and again; None ends the connection."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                if b"chunked" in head.lower():
                    await reader.readuntil(b"0\r\n\r\n")
                answer = left.pop(0) if len(left) > 1 else left[0]
                if answer is not None:
                    status, body = answer
                    told = f"HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
                    writer.write(told.encode() + body)
                    await writer.drain()
        finally:
            writer.close()  # of one that came and said nothing, too

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


FILE = (200, b'{"id": "file-x"}')
AWAY = (503, b'{"error": {"message": "Redis is away"}}')
CONTENT = (200, b'{"custom_id": "a"}\n')


def told(status: str, **fields: Any) -> tuple[int, bytes]:
    about = {"id": "batch_x", "status": status, "endpoint": "/v1/embeddings", "created_at": 1}
    return 200, json.dumps(about | fields).encode()


DONE = told("completed", output_file_id="file-o")


async def test_a_wait_outlives_its_balancer(batch: Run, tmp_path: Path) -> None:
    file = write(tmp_path, jsonl([chat_line("a", "x")]))
    async with sick_balancer(FILE, told("validating"), AWAY, None, DONE) as url:
        found = await batch("submit", file, url=url)
    assert "submitted batch_x" in found.words
    assert "completed" in found.stdout


@pytest.mark.parametrize("more", [(), ("--json",)])
async def test_answers_are_alone_on_stdout(batch: Run, tmp_path: Path, more: tuple[str, ...]) -> None:
    file = write(tmp_path, jsonl([chat_line("a", "x")]))
    async with sick_balancer(FILE, DONE, CONTENT) as url:
        found = await batch("submit", file, "-o", "-", *more, url=url)
    assert found.stdout.encode() == CONTENT[1]
    assert "batch_x" in found.words


async def test_urls_and_answers_that_are_none(batch: Run) -> None:
    for url in ("http://[", "http://127.0.0.1:port", "ftp://127.0.0.1"):
        assert "--url" in (await batch("list", url=url, code=1)).words
    async with sick_balancer((200, b"<html>\xff")) as url:
        assert "does not answer as a balancer does" in (await batch("list", url=url, code=1)).words


async def test_where_the_answers_go_is_looked_at_first(batch: Run, tmp_path: Path) -> None:
    file = write(tmp_path, jsonl([chat_line("a", "x")]))
    async with sick_balancer((500, b"it was asked")) as url:
        found = await batch("submit", file, "-o", str(tmp_path / "none" / "out"), url=url, code=1)
    assert "cannot be written" in found.words


async def test_what_was_there_stays_until_the_answer_is_whole(batch: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("before")
    async with sick_balancer(DONE, AWAY, DONE, CONTENT) as url:
        await batch("fetch", "batch_x", "-o", str(output), url=url, code=1)
        assert output.read_text() == "before"
        await batch("fetch", "batch_x", "-o", str(output), url=url)
    assert output.read_bytes() == CONTENT[1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


async def test_a_mark_and_blank_lines_before_the_first(batch: Run, tmp_path: Path) -> None:
    file = write(tmp_path, b"\xef\xbb\xbf\n \n" + jsonl([chat_line("a", "x")]))
    async with sick_balancer(FILE, told("validating")) as url:
        await batch("submit", file, "--no-wait", url=url)
