"""The ledger that autoscalers read: exact at every step of a long random run, on Valkey 9 and Redis 7.0."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from queue_calls import IS_FULL, random_source
from queue_driver import QueueDriver

from paddler.store.client import Store

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 40_000 if IS_FULL else 4_000


@pytest.mark.anyio
@pytest.mark.timeout(60 + NUM_STEPS // 15)
async def test_demand_is_waiting_plus_running_at_every_step(any_store: Store) -> None:
    """The driver looks after each step; a lag of the consumer group would be unknown for many of them."""
    chance = random_source()
    driver = QueueDriver(any_store.pool("default"))
    lengths: set[int] = set()
    while driver.num_steps < NUM_STEPS:
        await driver.random_step(chance)
        model = driver.model
        demand = await any_store.redis.xlen(driver.pool.keys.demand())
        batch = await any_store.redis.xlen(driver.pool.keys.demand_batch())
        unfinished = [one for one in model.requests.values() if not one.is_ended]
        assert batch == sum(one.request_class == "batch" for one in unfinished)
        assert demand == len(unfinished) - batch
        lengths.add(demand)
    await driver.finish()
    assert driver.model.ends["done"] > NUM_STEPS / 100, "it served"
    assert len(lengths) > 8, "and the ledger moved"
    assert driver.num_chosen > NUM_STEPS / 400, "and claims chose"
    print(driver.summary())


def test_nothing_of_ours_reads_the_lag_of_a_consumer_group() -> None:
    """It is NULL after any XDEL on Redis 7, 8 and Valkey: an autoscaler that reads it stops a full queue."""
    sources = [path for folder in ("paddler", "api", "workers") for path in (ROOT / folder).rglob("*")]
    texts = {path: path.read_text() for path in sources if path.suffix in (".py", ".lua")}
    assert len(texts) > 40
    lag = re.compile(r"\bxinfo|[\"']lag[\"']|lagCount", re.IGNORECASE)
    assert [str(path) for path, text in texts.items() if lag.search(text)] == []
