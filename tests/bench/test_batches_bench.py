"""The batch benchmark in a small size: it runs, and memory does not grow with a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_MB = 64


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["redis", "file"])
def test_a_small_size(store: str) -> None:
    command = [sys.executable, "-m", "tests.bench.batches", "--lines", "400", "--file-mb", str(FILE_MB)]
    command += ["--folder"] if store == "file" else []
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["file_store"] == store
    assert (report["lines"], report["file_mb"]) == (400, FILE_MB)
    assert report["lines_per_s"] > 0
    grown = report["file_peak_mb"]["balancer"] - report["start_mb"]["balancer"]
    assert grown < FILE_MB / 3, f"the balancer has grown by {grown} MB for a file of {FILE_MB} MB"
