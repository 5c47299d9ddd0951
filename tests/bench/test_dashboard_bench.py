"""The benchmark of the dashboard in its smallest size."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(120)


def test_it_measures_a_small_fleet() -> None:
    command = [sys.executable, "-m", "tests.bench.dashboard", "--agents", "5", "--seconds", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    found = re.search(r"5 agents, \d+ s, (\d+) changes heard", ended.stdout)
    assert found, ended.stdout
    assert int(found[1]) > 0
    assert "key to screen" in ended.stdout
