"""What an upgrade does: every process of a fleet is restarted in turn, under load, and no client has anything of it but
a connection that it was told to take up elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddler.store.process_keys import process_key
from tests.chaos.fleet import PREFIX, ChaosFleet, Member, until
from tests.chaos.run import ProducerProcess, finish
from tests.chaos.tally import Order, Tally

LEASE_MS = 1500
MORE = 8
"""Requests that end between two restarts: the one before is over for the clients, too."""


class Rolling:
    """A fleet of two balancers, two agents, a worker and a Valkey, and a producer that keeps twelve streams going, four
    more than there are slots."""

    def __init__(self, fleet: ChaosFleet, producer: ProducerProcess) -> None:
        self.fleet = fleet
        self.producer = producer

    def load_goes_on(self) -> None:
        before = self._num_done
        until(lambda: self._num_done >= before + MORE or not self.producer.is_running, "requests end")
        assert self.producer.is_running, self.producer.tally

    @property
    def _num_done(self) -> int:
        return self.producer.tally.counts.get("done", 0)

    def restart(self, member: Member) -> None:
        """SIGTERM; it ends by itself, with exit code 0, and another takes its place."""
        assert member.stop(), f"{member.log.name} did not end on SIGTERM"
        assert member.process.exitcode == 0, member.log.read_text()
        if member is self.fleet.worker:
            self.fleet.worker = self.fleet.new_worker()
        self.fleet.replace_dead()
        until(self._is_whole, "everybody is there again")
        self.load_goes_on()

    def restart_valkey(self) -> None:
        self.fleet.server.stop()
        self.fleet.server.start()
        until(self._is_whole, "everybody is there again")
        self.load_goes_on()

    def _is_whole(self) -> bool:
        num_processes = len(self.fleet.redis.keys(process_key(PREFIX, "*")))
        return num_processes == 5 and self.fleet.redis.zcard(self.fleet.keys.agents()) == 2


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[Rolling]:
    fleet = ChaosFleet(
        tmp_path, appendfsync="everysec", agents=2, slots=4, balancers=2, step_ms=15.0, lease_ms=LEASE_MS
    )
    with contextlib.ExitStack() as stack:
        stack.callback(fleet.close)
        fleet.start()
        order = Order(
            name="rolling",
            seed=1,
            requests=100_000,
            streams=12,
            mean_tokens=40,
            poisons_s=0,
            ports=fleet.ports,
            redis_url=fleet.server.url,
            prefix=PREFIX,
            may_forget=False,
            patience_s=60,
        )
        producer = ProducerProcess(order)
        stack.callback(producer.end)
        yield Rolling(fleet, producer)


@pytest.mark.timeout(180)
@pytest.mark.xdist_group("real processes")
def test_every_process_is_restarted_and_every_request_answered_once(rolling: Rolling) -> None:
    fleet = rolling.fleet
    rolling.load_goes_on()
    for member in (*fleet.balancers, fleet.worker, *fleet.agents):
        rolling.restart(member)
    rolling.restart_valkey()
    rolling.producer.wind_up()
    rolling.producer.end()
    tally = Tally()
    tally.add(rolling.producer.tally)
    counters = finish(fleet, tally)
    assert tally.num_violations == 0, tally.violations
    counts = tally.counts
    # Each asked for once, accepted once, answered whole, once, and its journal is that of an uninterrupted run.
    assert counts["sent"] == counts["done"] == counts["journals checked"] == counters["accepted"]
    assert counts["sent"] > 6 * MORE
    assert counts["resumed"] > 0, "a balancer left in the middle of streams"
    assert counters["handed_over"] > 0, "an agent left in the middle of requests"
    assert "deaths" not in counters, "nobody was lost: all of them left"
