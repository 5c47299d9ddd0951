"""Lines on their way out of a process, with a reader who does not read, reads late, or is gone."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from paddler.log_writer import LineWriter
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

LINES = 3000
LENGTH = 100


class Pipe:
    """Each end is closed once: its number may be another file's by then."""

    def __init__(self) -> None:
        self.source, self.sink = os.pipe()
        self._open = {self.source, self.sink}

    def close(self, *ends: int) -> None:
        for end in ends or (self.source, self.sink):
            if end in self._open:
                self._open.remove(end)
                os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def told(num: int, why: str | None) -> str:
    return f"{num} dropped" if why is None else f"{num} dropped: {why}"


def put_all(writer: LineWriter) -> None:
    for number in range(LINES):
        writer.put(f"{number:05}".ljust(LENGTH, "x"))


@pytest.mark.parametrize("is_blocking", [True, False])
async def test_what_finds_no_room_is_dropped_and_told(pipe: Pipe, is_blocking: bool) -> None:
    """The pipe is full, the queue holds 10 kB: most is too much, and nobody waits for anything."""
    source, sink = pipe.source, pipe.sink
    os.set_blocking(sink, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sink, b"\n")
    os.set_blocking(sink, is_blocking)
    writer = LineWriter(sink, told, max_bytes=10_000)
    put_all(writer)
    assert 0 < writer.num_dropped < LINES
    assert not writer.flush(0.01)

    found: list[str] = []

    def read() -> None:
        with open(source, closefd=False) as stream:
            found.extend(line.rstrip("\n") for line in stream if line != "\n")

    reading = threading.Thread(target=read)
    reading.start()
    await wait_until(lambda: writer.flush(0.1), what="all is written once somebody reads")
    num_dropped = writer.num_dropped
    writer.put("at last")
    writer.close()
    writer.put("too late")
    pipe.close(sink)
    reading.join(30)
    assert not reading.is_alive()
    notes = [line for line in found if line.endswith(" dropped")]
    lines = [line for line in found if len(line) == LENGTH]
    assert lines == sorted(lines), "in order"
    num_so_far = 0
    for line in found[:-1]:
        if len(line) == LENGTH:
            assert int(line[:5]) == num_so_far, "what was dropped is told where it is missing"
        num_so_far += 1 if len(line) == LENGTH else int(line.split()[0])
    assert len(lines) + num_dropped == LINES
    assert sum(int(note.split()[0]) for note in notes) == num_dropped
    assert found[-1] == "at last"
    assert len(notes) + len(lines) + 1 == len(found), "each is whole"


async def test_a_reader_that_is_gone(pipe: Pipe) -> None:
    source, sink = pipe.source, pipe.sink
    pipe.close(source)
    writer = LineWriter(sink, told)
    put_all(writer)
    assert writer.flush(30)
    assert writer.num_dropped == LINES
    writer.close()


async def test_a_disk_that_is_full_for_a_while(pipe: Pipe) -> None:
    """Nobody could be told then; the first line that can be written again says what is missing, once."""
    with open("/dev/full", "wb", buffering=0) as full:
        writer = LineWriter(full.fileno(), told)
        for number in range(3):
            writer.put(f"lost {number}")
            assert writer.flush(30)
        assert writer.num_dropped == 3
        os.dup2(pipe.sink, full.fileno())
        writer.put("again")
        writer.put("and again")
        assert writer.flush(30)
        expected = b"3 dropped: No space left on device\nagain\nand again\n"
        assert os.read(pipe.source, 1000) == expected
        assert writer.num_dropped == 3
        writer.close()


async def test_a_line_that_was_written_in_part(pipe: Pipe) -> None:
    """Its reader leaves in the middle of it; who reads next finds whole lines."""
    writer = LineWriter(pipe.sink, told)
    writer.put("x" * 1_000_000)
    assert os.read(pipe.source, 10) == b"x" * 10
    other = Pipe()
    pipe.close(pipe.source)
    assert writer.flush(30)
    os.dup2(other.sink, pipe.sink)
    writer.put("again")
    assert writer.flush(30)
    assert os.read(other.source, 1000) == b"\n1 dropped: Broken pipe\nagain\n"
    writer.close()
    other.close()


def test_metrics_count_what_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    from paddler import logs
    from paddler.metrics.exposition import render
    from paddler.metrics.requests import RequestMetrics

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full))
        logs.configure("balancer", "info", "json")
        try:
            logs.get_logger("test").info("hello")
            logs.flush()
            assert logs.num_dropped() == 1
            assert "\npaddler_log_lines_dropped_total 1.0\n" in render(RequestMetrics(), None).decode()
        finally:
            (handler,) = root.handlers
            root.handlers[:] = handlers
            handler.close()
            root.setLevel(level)
            logging.captureWarnings(capture=False)


async def test_a_line_longer_than_the_queue(pipe: Pipe) -> None:
    source, sink = pipe.source, pipe.sink
    writer = LineWriter(sink, told, max_bytes=10)
    writer.put("x" * 1000)
    assert writer.flush(30)
    assert os.read(source, 2000) == b"x" * 1000 + b"\n"
    writer.close()


CHILD = """
import sys
from paddler import logs
logs.configure("balancer", "info", "json")
log = logs.get_logger("test")
for number in range(int(sys.argv[1])):
    log.info("line", number=number, more="x" * 200)
log.info("the last")
"""


def test_a_process_writes_what_waits_before_it_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", CHILD, "500"], capture_output=True, text=True, timeout=60, check=True)
    records = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [one["number"] for one in records[:-1]] == list(range(500))
    assert records[-1]["event"] == "the last"


def test_a_process_whose_log_nobody_reads_does_its_work_and_ends() -> None:
    """30 MB of lines, of which the pipe and the queue hold some: the rest is told of as a record, if anybody reads."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, "100000"], stderr=subprocess.PIPE)
    assert child.wait(120) == 0
    assert child.stderr is not None
    child.stderr.close()


def test_the_record_of_what_was_dropped(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    from paddler import logs
    from paddler.logs import ThreadedHandler

    source, sink = pipe.source, pipe.sink
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(os.fdopen(os.dup(sink), "wb")))
    logs.configure("agent", "info", "json")
    try:
        (handler,) = root.handlers
        assert isinstance(handler, ThreadedHandler)
        writer = handler.writer
        writer._num_untold = 7
        logs.get_logger("test").info("hello")
        logs.flush()
        lines = [json.loads(line) for line in os.read(source, 10_000).splitlines()]
        assert [line["event"] for line in lines] == ["lines of the log were dropped, as nobody read them", "hello"]
        assert (lines[0]["lines"], lines[0]["level"], lines[0]["process"]) == (7, "warning", "agent")
        handler.close()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)
