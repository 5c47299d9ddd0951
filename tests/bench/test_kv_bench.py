"""The benchmark of the tiers in its smallest size, with a model of two layers: all parts run, and all restore."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tiny_gguf import write_model

from paddler.up.starter import find_starter
from tests.bench.kv_report import MARKS, Report, markdown

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "


def tiny_model(folder: Path) -> Path:
    return write_model(folder / "tiny.gguf", find_starter(), TEMPLATE)


@pytest.mark.timeout(240)
@pytest.mark.xdist_group("real processes")
def test_every_part_runs_and_restores(tmp_path: Path) -> None:
    file, page = tmp_path / "report.json", tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}old\n{MARKS[1]}after\n")
    sizes = ["--rounds", "1", "--sizes", "700", "--conversation", "700", "--threads", "1", "--context-size", "4096"]
    sizes += ["--output-tokens", "2000"]
    command = [sys.executable, "-m", "tests.bench.kv", "--model", str(tiny_model(tmp_path)), *sizes]
    ended = subprocess.run(
        [*command, "--json", str(file), "--out", str(page)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert [one.tier for one in report.prefixes] == ["peer", "shared", "disk", "ram"]
    for one in report.prefixes:
        assert one.cached_tokens[0] >= 512, f"{one.tier}: nothing was restored"
    assert report.zero is not None
    assert min(report.zero.pinned_s) > 0
    assert [gap.has_state for gap in report.gaps] == [True, False]
    section = markdown(report)
    assert section in ended.stdout
    assert page.read_text() == f"before\n{MARKS[0]}\n{section}\n{MARKS[1]}after\n"
