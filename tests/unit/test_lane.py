"""How an agent that has no slots yet is told of."""

from __future__ import annotations

from typing import Any

import pytest

from paddler.jobs.lanes import Download, Lane
from paddler.metrics.fleet_metrics import STATES
from paddler.queue_cli.tables import lanes_table

LANE: dict[str, Any] = {
    "agent": "a",
    "name": "n",
    "model": "",
    "slots": 0,
    "requests": 0,
    "prefill": None,
    "rate": None,
}


def lane(state: str, lease_left_ms: int = 1000, **fields: Any) -> Lane:
    return Lane(**LANE, state=state, lease_left_ms=lease_left_ms, **fields)


@pytest.mark.parametrize(
    ("download", "state"),
    [
        (Download(), "waiting"),
        (Download(current=30, total=40, filename="m"), "downloading 75%"),
        (Download(current=1_500_000_000, total=0, filename="m", is_indeterminate=True), "downloading 1,500 MB"),
    ],
)
def test_a_download_is_seen(download: Download, state: str) -> None:
    [told] = lanes_table([lane("waiting", download=download)]).columns[2].cells
    assert str(told) == state


def test_slots_that_will_come() -> None:
    under_way = Download(current=1, total=2, filename="m")
    assert lane("loading").is_coming
    assert lane("waiting", download=under_way).is_coming
    assert not lane("waiting").is_coming, "nobody wants a model of it"
    assert not lane("ready", download=under_way).is_coming, "it serves the old one meanwhile"
    assert not lane("loading", lease_left_ms=-1).is_coming


def test_metrics_have_a_name_for_each_state() -> None:
    assert {"waiting", "loading", "failed", "ready", "draining", "drained", "leaving"} < set(STATES)
