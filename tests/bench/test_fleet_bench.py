"""The fleet benchmark in its smallest size, without a model: all sides answer, and its section compares them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from lacking import lacks

from tests.bench.fleet_report import BEGIN, END, Versus, markdown
from tests.bench.fleet_sides import find_nginx

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
def test_the_smallest_size_runs_without_an_error(tmp_path: Path) -> None:
    try:
        find_nginx()
    except SystemExit as error:
        lacks(str(error))
    file, page = tmp_path / "versus.json", tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    command = [sys.executable, "-m", "tests.bench.fleet", "--smoke", "--rounds", "1", "--seconds", "2"]
    ended = subprocess.run(
        [*command, "--json", str(file), "--out", str(page)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    versus = msgspec.json.decode(file.read_bytes(), type=Versus)
    names = [target.label for target in versus.report.targets]
    assert names == ["Paddler", "nginx least_conn", "nginx round robin"]
    for target in versus.report.targets:
        (found,) = target.rounds
        assert (found.num_ok, found.errors) == (found.num_requests, {})
        assert found.num_ok > 0
    hits = versus.report.targets[0].rounds[0].hit_rate
    assert hits is not None
    assert hits > 0
    section = markdown(versus)
    assert section in ended.stdout
    assert page.read_text() == f"before\n{BEGIN}\n{section}\n{END}after\n"
    assert "mean TTFT" in section
    assert "Paddler: no errors" in section
