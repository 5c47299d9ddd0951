"""The benchmark of large fleets in its smallest size: it runs, nothing fails, and its report has its parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.bench.scale_report import Measured, Report, project
from tests.bench.scale_valkey import Spent

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
@pytest.mark.xdist_group("real processes")
def test_the_smallest_size_runs_without_an_error(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    options = ["--agents", "3", "--slots", "2", "--busy", "1", "--step-ms", "20", "--processes", "1"]
    options += ["--seconds", "1", "--warmup", "0.2"]
    command = [sys.executable, "-m", "tests.bench.scale", *options, "--json", str(file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    [found] = report.sizes
    assert (found.agents, found.slots, found.num_lost) == (3, 6, 0)
    for loaded in (found.short, found.long):
        assert loaded.errors == 0
        assert loaded.tokens > 0
        assert loaded.valkey.cpu_s > found.idle.valkey.cpu_s > 0
        assert loaded.valkey.functions > 0
    assert found.short.tokens > found.short.requests > 0
    assert (found.idle.tokens, found.idle.requests) == (0, 0)
    assert {"emit", "submit", "settle"} <= {one.name for one in found.functions}
    assert "Projected, not measured" in ended.stdout


def window(cpu_s: float, *, requests: int = 0, tokens: int = 0) -> Measured:
    used = Spent(seconds=10, cpu_s=cpu_s, functions=tokens, reads=0, bytes_in=0, bytes_out=tokens * 100)
    return Measured(valkey=used, tokens=tokens, requests=requests, errors=0, agents_cpu_s=1, balancer_cpu_s=2)


def test_what_is_of_an_agent_a_request_and_a_token_is_told_apart() -> None:
    """100 agents at 50 us a second, requests at 300 us, tokens at 40 us."""
    loads = {"short": (100, 800), "long": (20, 1280)}
    windows = {
        name: window(0.05 + (300 * requests + 40 * tokens) / 1e6, requests=requests, tokens=tokens)
        for name, (requests, tokens) in loads.items()
    }
    told = project(100, window(0.05), **windows)
    assert (told.agent_us_s, told.request_us, told.token_us, told.token_bytes) == (50, 300, 40, 100)
    assert told.max_agents_idle == 14_000
    assert told.max_tokens_s == round((700_000 - 5_000) / (40 + 300 / 256))
    assert told.first_bottleneck == "balancer"
