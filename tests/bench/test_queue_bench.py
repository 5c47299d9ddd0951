"""The queue benchmark in its smallest size: it runs, nothing is lost, and its report has its parts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import cast

import msgspec
import pytest

from tests.bench.queue_client import TEXT, Call, Connection, Quantiles, quantiles
from tests.bench.queue_measure import max_displacement
from tests.bench.queue_results import Report

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
def test_the_smallest_size_runs_without_an_error(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.bench.queue_latency", "--smoke", "--json", str(file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = msgspec.json.decode(file.read_bytes(), type=Report)

    assert [row.rate for row in report.latency] == [20, 50]
    for row in report.latency:
        assert row.num_requests > 0
        assert (row.num_errors, row.errors) == (0, [])
        assert 0 < row.floor_p50.median < row.first_p50.median <= row.whole_p99.median
    for row in report.frames:
        assert row.num_requests > 0
        assert (row.num_errors, row.errors) == (0, [])
        assert {"balancer", "valkey", "agent0"} == row.us_per_frame.keys()
        assert row.frames_s.median > 0
    assert report.scripts is not None
    assert [level.waiting for level in report.scripts.levels] == [10, 200]
    for level in report.scripts.levels:
        assert {"submit", "claim", "open", "settle"} == level.cold.keys() == level.held.keys()
        timings = [*level.cold.values(), *level.held.values()]
        assert all(0 < timing.server_us.p50 < timing.caller_us.p99 for timing in timings)
    assert [level.bytes_per_request is None for level in report.scripts.levels] == [True, False]
    assert [crowd.agents for crowd in report.crowds] == [2, 20]
    assert report.zero is not None
    assert (report.zero.requests, report.zero.num_refused, report.zero.num_lost) == (50, 0, 0)
    assert (report.zero.num_left, report.zero.errors) == (0, [])
    assert report.zero.max_displacement <= report.zero.slots
    assert {goal.what for goal in report.goals} >= {"requests refused or lost that met no agent", "places out of order"}
    assert "requests against no agent" in ended.stdout


def test_quantiles_are_nearest_ranks() -> None:
    assert quantiles(range(1, 101)) == Quantiles(50, 90, 99, 100)
    assert quantiles([]) == Quantiles(0, 0, 0, 0)


def test_requests_given_in_turn_are_not_displaced() -> None:
    assert max_displacement([(at, 100 + at) for at in range(10)]) == 0
    assert max_displacement([(at // 4, 100 + at) for at in range(10)]) == 0


def test_a_request_that_overtakes_is_displaced_by_what_it_overtook() -> None:
    assert max_displacement([(0, 100), (1, 102), (2, 103), (3, 101)]) == 2


CHUNK = b'5\r\ndata: {"choices":[{' + TEXT + b'"w1 "}}]}\n\n'


def told(*reads: bytes) -> tuple[Call, list[Connection]]:
    """A call that was answered with these reads, and the connections on which it ended."""
    ended: list[Connection] = []
    connection = Connection()
    connection.connection_made(cast("asyncio.Transport", Transport()))
    call = Call(0, lambda: None, ended.append)
    connection.send(b"", call)
    for data in reads:
        if connection.call is not None:
            connection.data_received(data)
    return call, ended


class Transport:
    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


def test_the_client_counts_events_however_they_are_cut() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + CHUNK * 3 + b"data: [DONE]\n\n\r\n0\r\n\r\n"
    for at in range(15, len(answer)):
        call, ended = told(answer[:at], answer[at:])
        assert (call.num_frames, call.error, len(ended)) == (3, "", 1)
        assert 0 < call.sent_ns <= call.first_ns <= call.end_ns


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nfull", "HTTP status 503 full"),
        (b"HTTP/1.1 200 OK\r\n\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", "the stream has no text or no [DONE]"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + CHUNK + b"\r\n0\r\n\r\n", "the stream has no text or no [DONE]"),
    ],
)
def test_the_client_takes_nothing_else_for_an_answer(answer: bytes, error: str) -> None:
    call, ended = told(answer)
    assert call.error == error
    assert len(ended) == 1
