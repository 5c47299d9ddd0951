"""docs/troubleshooting.md has every error that a client can meet, and words that a process really says."""

from __future__ import annotations

import re
from pathlib import Path

from paddler.errors import leaves

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/troubleshooting.md").read_text()
THEIRS = {"Connection error", "OOM command not allowed", "WRONGPASS", "NOAUTH", "NOPERM", "MISCONF", "READONLY"}
"""Words of Redis and of OpenAI's client."""


def told() -> dict[str, int]:
    """Code of an error to its status, by the first column of the first table."""
    table = TEXT.partition("## An answer is an error")[2].partition("\n## ")[0]
    found: dict[str, int] = {}
    for cell in re.findall(r"^\| (\d.*?) \|", table, re.MULTILINE):
        status = 0
        for number, code in re.findall(r"(\d{3})|`(\w+)`", cell):
            if number:
                status = int(number)
            else:
                found[code] = status
    return found


def source() -> str:
    """Python's, with texts that go on in the next line as one."""
    paths = [path for top in ("paddler", "api", "workers") for path in (ROOT / top).rglob("*.py")]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in paths))


def test_every_error_is_in_it_with_its_status() -> None:
    assert told() == {code: leaf.status for code, leaf in leaves().items()}


def test_processes_say_what_it_quotes() -> None:
    quoted: list[str] = []
    for title in ("A process does not start", "Redis", "A client"):
        section = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
        quoted += [
            part for cell in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for part in re.findall(r"`(.+?)`", cell)
        ]
    assert len(quoted) > 15
    said = source()
    assert [words for words in quoted if words not in THEIRS and words not in said] == []
