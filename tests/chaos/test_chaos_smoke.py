"""The chaos run in its smallest size: every kind of fault comes at least once, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from api.openai.chat import read_chat_call
from paddler.wire.balancer import Finished, FinishReason, Opened, Tokens, encode_frame
from tests.chaos.checking import journal_problem
from tests.chaos.faults import CHANCES
from tests.chaos.tally import Report
from tests.chaos.traffic import Ask

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(240)
@pytest.mark.xdist_group("real processes")
def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    size = ["--requests", "300", "--agents", "4", "--producers", "2", "--streams", "24"]
    command = [sys.executable, "-m", "tests.chaos.run", "--mode", "always", *size, "--json", str(file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert all(report.faults[kind] for kind in CHANCES)
    assert report.outcomes["sent"] == 300 + report.outcomes["poison sent"]
    assert report.outcomes["journals checked"] > 290
    assert report.outcomes["dead, poison"] == report.outcomes["poison sent"] > 0


BODY = b'{"model":"default","messages":[{"role":"user","content":"go [[tokens=6]]"}]}'
GOOD = Ask(BODY, read_chat_call(BODY, 7).payload)
IDS, _ = GOOD.expected
OPENED = encode_frame(Opened("agent", 1))
END = encode_frame(Finished(FinishReason.STOP))


def tokens(*ids: int) -> bytes:
    texts = {token: f"w{token} " for token in IDS}
    return encode_frame(Tokens(ids, "".join(texts[token] for token in ids)))


@pytest.mark.parametrize(
    ("journal", "problem"),
    [
        (OPENED + tokens(*IDS) + END, ""),
        (OPENED + tokens(*IDS[:2]) + encode_frame(Opened("other", 2)) + tokens(*IDS[2:]) + END, ""),
        (OPENED + tokens(*IDS[:2]) + tokens(*IDS[1:]) + END, "uninterrupted"),
        (OPENED + tokens(*IDS[1:]) + END, "uninterrupted"),
        (OPENED + tokens(*IDS[:-1]) + END, "done with"),
        (OPENED + tokens(*IDS) + END + END, "terminal frames"),
        (OPENED + tokens(*IDS), "terminal frames"),
        (OPENED + OPENED + tokens(*IDS) + END, "opened for attempts"),
        (OPENED + tokens(*IDS) + END[:-1], "cannot be read"),
    ],
)
def test_the_checker_sees_what_is_wrong(journal: bytes, problem: str) -> None:
    found = journal_problem(journal, GOOD, b"done", may_forget=False)
    assert problem in found
    assert bool(found) == bool(problem)
