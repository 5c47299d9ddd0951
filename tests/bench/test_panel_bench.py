"""The panel's benchmark with a small fleet for a second: it measures what it says, and the pages do not stand still."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lacking import lacks

from tests.bench.panel import measure, table

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("panel"), pytest.mark.timeout(240)]

DIST = Path(__file__).resolve().parents[2] / "api" / "panel" / "dist" / "index.html"


async def test_the_pages_move_with_a_fleet_in_view() -> None:
    if not DIST.exists() or shutil.which("chromium") is None:
        lacks("the panel is not built, or there is no chromium: make panel; apt-get install chromium")
    seen = await measure(agents=60, slots=2, waiting=400, seconds=1.0, ends_per_s=10, frames_per_s=40)
    whats = ["open", "look on", "scroll"]
    assert [(one.page, one.what) for one in seen] == [
        *(("fleet", what) for what in whats),
        *(("requests", what) for what in whats),
        ("requests", "search"),
    ]
    for one in seen:
        assert one.frames_per_s > 0, one
        assert one.frame_ms_p50 <= one.frame_ms_p99
        assert set(one.cpu) == {"balancer", "valkey", "browser"}
    # Both feeds told of what moved meanwhile.
    assert min(one.feed_bytes_per_s for one in seen if one.what != "search") > 0
    assert len(table(seen).splitlines()) == 2 + len(seen)
