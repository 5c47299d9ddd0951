"""`make chaos`: thousands of requests through a fleet in which something is killed all the time; none may be lost.

Every request must come to one end, every stream must be the uninterrupted one token by token, and in the end Redis must
hold no key without a TTL but the permanent ones. Exit code 0: it was so.
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from paddler.store.keys import SIDES
from paddler.testing.leaks import leaked_keys
from tests.chaos.faults import POISONS_S, TICK_S, Chaos
from tests.chaos.fleet import PREFIX, ChaosFleet, until
from tests.chaos.tally import Order, Report, Tally

MODES = {"graceful": "everysec", "always": "always", "everysec": "everysec"}
"""How Valkey is restarted, and its `appendfsync`: SIGTERM, SIGKILL, SIGKILL with up to a second of its log lost."""

PATIENCE_S = 120.0
TELL_S = 5.0
IDLE_S = 90.0


class ProducerProcess:
    """A producer, and the last tally it told."""

    def __init__(self, order: Order) -> None:
        self.tally = Tally()
        self.name = order.name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.producer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order))
        self._process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        return self._reader.is_alive()

    def wind_up(self) -> None:
        """Let it end what it has begun, and wait for that."""
        self._process.terminate()
        self._reader.join()

    def end(self) -> None:
        """Stop it, if it has not ended by itself."""
        if self.is_running:
            self._process.kill()
            self._reader.join()
        if self._process.wait() != 0:
            self.tally.violate(f"{self.name} failed with exit code {self._process.returncode}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.tally = msgspec.json.decode(line, type=Tally)


def main() -> int:
    options = read_options()
    seed: int = options.seed if options.seed is not None else secrets.randbits(32)
    # Also where it was started with them ignored: everybody who was started is stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    print(f"chaos: mode {options.mode}, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="paddler-chaos-"))
    report = run(options, seed, folder)
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    print(msgspec.json.format(msgspec.json.encode(report)).decode())
    if report.num_violations:
        print(f"chaos: FAILED, the logs are in {folder}")
        return 1
    print("chaos: passed")
    shutil.rmtree(folder)
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--streams", type=int, default=120, help="requests under way at once, over all producers")
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--balancers", type=int, default=2)
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--step-ms", type=float, default=25.0)
    parser.add_argument("--tokens", type=int, default=16, help="of an answer, on average")
    parser.add_argument("--lease", type=int, default=1500, help="ms")
    parser.add_argument("--mode", choices=MODES, default="graceful")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--poison", type=float, default=POISONS_S, help="poison requests a second")
    parser.add_argument("--json", help="write the report here")
    return parser.parse_args()


def run(options: argparse.Namespace, seed: int, folder: Path) -> Report:
    chance = random.Random(seed)
    fleet = ChaosFleet(
        folder,
        appendfsync=MODES[options.mode],
        agents=options.agents,
        slots=options.slots,
        balancers=options.balancers,
        step_ms=options.step_ms,
        lease_ms=options.lease,
    )
    begin = time.monotonic()
    producers: list[ProducerProcess] = []
    tally = Tally()
    try:
        fleet.start()
        chaos = Chaos(fleet, chance, mode=options.mode, lease_ms=options.lease)
        producers += [ProducerProcess(order_of(options, fleet, chance, number)) for number in range(options.producers)]
        drive(chaos, producers, begin)
        for producer in producers:
            producer.end()
            tally.add(producer.tally)
        counters = finish(fleet, tally)
        for key in leaked_keys(fleet.server.url, PREFIX):
            tally.violate(f"{key} is left without a TTL")
    finally:
        for producer in producers:
            producer.end()
        fleet.close()
    return Report(
        mode=options.mode,
        seed=seed,
        seconds=round(time.monotonic() - begin, 1),
        outcomes=tally.counts,
        faults=dict(chaos.counts),
        counters=counters,
        num_violations=tally.num_violations,
        violations=tally.violations,
    )


def order_of(options: argparse.Namespace, fleet: ChaosFleet, chance: random.Random, number: int) -> Order:
    return Order(
        name=f"producer-{number}",
        seed=chance.randrange(2**32),
        requests=share(options.requests, options.producers, number),
        streams=share(options.streams, options.producers, number),
        mean_tokens=options.tokens,
        poisons_s=options.poison / options.producers,
        ports=fleet.ports,
        redis_url=fleet.server.url,
        prefix=PREFIX,
        may_forget=options.mode == "everysec",
        patience_s=PATIENCE_S,
    )


def share(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


def drive(chaos: Chaos, producers: list[ProducerProcess], begin: float) -> None:
    """Inject faults until the producers have asked for everything and have all answers."""
    told_at = begin
    while any(producer.is_running for producer in producers):
        time.sleep(TICK_S)
        is_winding_up = all(producer.tally.is_all_sent for producer in producers)
        if is_winding_up and chaos.has_done_all:
            chaos.rest()
        else:
            chaos.tick()
        if time.monotonic() - told_at >= TELL_S:
            told_at = time.monotonic()
            tally = Tally()
            for producer in producers:
                tally.add(producer.tally)
            print(f"{told_at - begin:6.0f} s  {line_of(tally.counts)}  |  {line_of(chaos.counts)}", flush=True)
            for violation in tally.violations[:3]:
                print(f"          VIOLATION {violation[:300]}", flush=True)
    chaos.rest()


def line_of(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def finish(fleet: ChaosFleet, tally: Tally) -> dict[str, int]:
    """Wait until nothing is left to do, stop everybody, and see what is left. Returns the pool's own counters."""
    keys = fleet.keys

    def num_unfinished() -> int:
        return fleet.redis.xlen(keys.demand()) + fleet.redis.xlen(keys.demand_batch())

    try:
        until(lambda: num_unfinished() == 0, "no request is left", IDLE_S)
    except TimeoutError:
        tally.violate(f"{num_unfinished()} requests are in the ledger and nobody works on them")
    if backlog := sum(int(fleet.redis.get(keys.backlog(side)) or 0) for side in SIDES):
        tally.violate(f"the backlog is {backlog} although nothing waits")
    for problem in fleet.stop_all():
        tally.violate(problem)
    return {name.decode(): int(number) for name, number in fleet.redis.hgetall(keys.counters()).items()}


if __name__ == "__main__":
    sys.exit(main())
