"""Metrics and public keys that README and docs name are those that docs/metrics.md and `keys.py` have."""

from __future__ import annotations

import re

import pytest
from container_files import ROOT

from paddler.store.keys import PoolKeys

METRICS = (ROOT / "docs/metrics.md").read_text()
TYPES = dict(re.findall(r"^\| `(paddler_\w+)` \| (\w+) \|", METRICS, re.MULTILINE))
SENT = re.findall(r"^\| `(paddler\.\w+)` \| ", METRICS, re.MULTILINE)
ENDS = {"histogram": ("_bucket", "_sum", "_count")}
OTHERS = {"paddler_client", "paddler_connection", "paddler_statsd"}
"""Paddler 4's Python client, a variable of nginx, what the exporter's names begin with."""
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))


def known() -> set[str]:
    found = {f"{name}{end}" for name, kind in TYPES.items() for end in ("", *ENDS.get(kind, ()))}
    found |= {name.replace(".", "_") for name in SENT}  # as CloudWatch calls them
    exporter = {f"paddler_statsd_{name.partition('.')[2]}" for name in SENT}
    timed = {f"{name}_seconds{end}" for name in exporter for end in ("", *ENDS["histogram"])}
    return found | exporter | timed | OTHERS


@pytest.mark.parametrize("page", PAGES)
def test_metrics_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    assert set(re.findall(r"(?<![\w.])paddler_[a-z_]*[a-z]", text)) <= known()
    assert set(re.findall(r"`(paddler\.[a-z_]+)`", text)) <= set(SENT)


@pytest.mark.parametrize("page", PAGES)
def test_keys_of_a_pool_are_the_public_ones(page: str) -> None:
    keys = PoolKeys("paddler", "default")
    text = (ROOT / page).read_text()
    named = {found.rstrip(":") for found in re.findall(r"paddler:\{default\}:[a-z:]+", text)}
    assert named <= {keys.demand(), keys.demand_batch()}
