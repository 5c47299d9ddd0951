"""What stands on the terminal: whose line it is, whole lines, and no failure when the terminal is gone."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator
from contextlib import contextmanager

from paddler import logs
from paddler.up.output import MAX_LINE_BYTES, NUM_LAST_LINES, LineReader, Output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def json_logs(stream: io.StringIO) -> Generator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logs.configure("up", "info", "json", stream=stream)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_every_line_says_whose_it_is() -> None:
    stream = io.StringIO()
    output = Output(stream, is_json=False, names=["balancer", "agent-1"])
    output.show("agent-1", "registered")
    output.show("balancer", "listening")
    output.say("first\nsecond", is_error=True)
    assert stream.getvalue().splitlines() == [
        "agent-1  | registered",
        "balancer | listening",
        "up       | first",
        "up       | second",
    ]


def test_a_terminal_gets_colours() -> None:
    stream = Terminal()
    output = Output(stream, is_json=False, names=["balancer", "agent-1"])
    output.show("agent-1", "registered")
    output.show("balancer", "listening")
    first, second = stream.getvalue().splitlines()
    assert first.startswith("\x1b[")
    assert first.endswith(" registered")
    assert first.split("agent")[0] != second.split("balancer")[0]


def test_as_json_every_line_is_a_record() -> None:
    stream = io.StringIO()
    with json_logs(stream):
        output = Output(stream, is_json=True, names=["balancer", "valkey"])
        output.show("balancer", '{"event":"listening","process":"balancer"}')
        output.show("valkey", "1:M * Ready to accept connections")
        output.say("balancer was killed by SIGKILL", is_error=True)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(record["process"], record["event"]) for record in records] == [
        ("balancer", "listening"),
        ("up", "1:M * Ready to accept connections"),
        ("up", "balancer was killed by SIGKILL"),
    ]
    assert records[1]["child"] == "valkey"
    assert records[2]["level"] == "error"


def test_a_terminal_that_is_gone_is_written_to_no_more() -> None:
    class Gone(io.StringIO):
        num_writes = 0

        def write(self, _text: str) -> int:
            self.num_writes += 1
            raise BrokenPipeError

    stream = Gone()
    output = Output(stream, is_json=False, names=["balancer"])
    output.show("balancer", "one")
    output.show("balancer", "two")
    assert stream.num_writes == 1


def test_output_is_cut_into_lines_however_it_arrives() -> None:
    seen: list[str] = []
    lines = LineReader(seen.append)
    for part in (b"on", b"e\ntw", b"o\r\nthr", "ée\n".encode()[:2], "ée\n".encode()[2:], b"end"):
        lines.feed(part)
    assert seen == ["one", "two", "thrée"]
    lines.close()
    lines.close()
    assert seen == ["one", "two", "thrée", "end"]


def test_a_line_without_end_does_not_fill_memory() -> None:
    seen: list[str] = []
    lines = LineReader(seen.append)
    lines.feed(b"x" * (MAX_LINE_BYTES + 1))
    lines.feed(b"y\n")
    assert [len(line) for line in seen] == [MAX_LINE_BYTES + 1, 1]


def test_bytes_that_are_no_text_are_shown_somehow() -> None:
    seen: list[str] = []
    LineReader(seen.append).feed(b"\xff\xfe ok\n")
    assert seen == ["�� ok"]


def test_hidden_lines_are_neither_shown_nor_kept() -> None:
    seen: list[str] = []
    lines = LineReader(seen.append, hidden=("overcommit",))
    for number in range(NUM_LAST_LINES + 5):
        lines.feed(f"WARNING overcommit\nline {number}\n".encode())
    assert list(lines.last_lines) == [f"line {number}" for number in range(5, NUM_LAST_LINES + 5)]
    assert len(seen) == NUM_LAST_LINES + 5
