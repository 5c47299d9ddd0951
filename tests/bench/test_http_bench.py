"""The HTTP benchmark in its smallest size: it runs, no stream is broken, and its report has its parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.bench.http_report import Report

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
def test_the_smallest_size_runs_without_an_error(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.bench.http_cost", "--quick", "--no-litellm", "--json", str(file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert [table.name for table in report.tables] == ["tokens", "latency", "rate"]
    for table in report.tables:
        assert [row.server for row in table.rows] == ["plain", "paddler"]
        for row in table.rows:
            assert (row.num_errors, row.errors) == (0, [])
            assert row.num_requests > 0
            assert row.tokens_s.median > row.requests_s.median > 0
            assert 0 < row.first_p50.median <= row.whole_p50.median <= row.whole_p99.median
            assert row.us_per_token.median > 0
        assert table.load in ended.stdout
    assert report.goals == [], "they are about LiteLLM"
