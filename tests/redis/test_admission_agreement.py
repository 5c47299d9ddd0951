"""`submit` admits whom the pure policy admits, and refuses for the same reason. Valkey 9 and Redis 7.0."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from queue_calls import IS_FULL, NOW, random_source, register, submit

from paddler.routing.admission import Admitted, Limits, Load, Refusal, admit, estimated_wait_ms, tenant_max
from paddler.store.client import Store
from paddler.store.results import Admission, Submission
from paddler.store.scripts import PoolScripts

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800 if IS_FULL else 120)]

NUM_STATES = 2_000 if IS_FULL else 150
TENANTS = ("ann", "bob", "eve")
ANSWERS = {
    Refusal.TENANT_SHARE: Admission.TENANT_FULL,
    Refusal.BUFFER_FULL: Admission.FULL,
    Refusal.WAIT_TOO_LONG: Admission.SLOW,
}


def new_request(chance: random.Random, number: int) -> Submission:
    return Submission(
        request_id=f"default.{number}",
        request_class=chance.choice(("interactive", "normal", "normal", "batch")),
        tenant=chance.choice(TENANTS),
        payload=b"",
        inbox="inbox",
        start_timeout_ms=0,
        max_waiting=1_000,
        prompt_tokens=chance.randint(0, 900),
        output_tokens=chance.randint(1, 512),
        is_background=chance.random() < 0.25,
    )


async def build(pool: PoolScripts, chance: random.Random) -> tuple[list[Submission], int]:
    """What waits, and how many slots are free. Some slots are free although requests wait (for a holder, say)."""
    waiting = [new_request(chance, number) for number in range(chance.randint(0, 12))]
    for submission in waiting:
        assert (await pool.submit(submission, now_ms=NOW)).admission is Admission.WAITING
    if waiting and chance.random() < 0.3:  # some have been promoted since
        await register(pool, "old", slots=1, now=NOW + 200_000)
        (entry,) = await pool.redis.xrange(pool.keys.lane("old"))
        waiting = [one for one in waiting if one.request_id != entry[1][b"id"].decode()]
    num_free = 0
    for number in range(chance.randint(0, 2)):
        slots = chance.choice((0, 0, 2))
        await pool.redis.hset(pool.keys.agent(f"a{number}"), mapping={"slots": slots, "state": "ready"})
        await pool.redis.zadd(pool.keys.agents(), {f"a{number}": NOW + 10**6})
        await pool.redis.zadd(pool.keys.free(), {f"a{number}": 2})  # whoever reads it looks again
        num_free += slots
    return waiting, num_free


async def test_every_admission_is_the_policys(any_store: Store) -> None:
    chance = random_source()
    answers: Counter[Admission] = Counter()
    for number in range(NUM_STATES):
        pool = any_store.pool(f"p{number}")
        waiting, num_free = await build(pool, chance)
        request = new_request(chance, 99)
        is_batch = request.side == "background"
        beside = [one for one in waiting if one.side == request.side]
        limits = Limits(
            max_buffered=chance.randint(0, 8),
            max_batch_buffered=chance.randint(0, 8),
            tenant_share=chance.choice((0.1, 0.5, 0.9, 1.0)),
            max_wait_ms=chance.choice((None, 1, 5_000, 20_000)),
        )
        load = Load(
            num_waiting=len(beside),
            num_waiting_of_tenant=sum(one.tenant == request.tenant for one in beside),
            num_free_slots=num_free,
            num_tokens=sum(one.prompt_tokens + one.output_tokens for one in beside),
            tokens_per_s=chance.choice((0.0, 130.7, 1_000.0)),
        )
        max_waiting = limits.max_batch_buffered if is_batch else limits.max_buffered
        _, answer = await submit(
            pool,
            now=NOW + 200_000,
            request_id=request.request_id,
            request_class=request.request_class,
            tenant=request.tenant,
            is_background=request.is_background,
            max_waiting=max_waiting,
            tenant_max_waiting=tenant_max(max_waiting, limits.tenant_share),
            rate=load.tokens_per_s,
            max_wait_ms=0 if is_batch else limits.max_wait_ms or 0,
        )
        expected = admit(load, limits, is_batch=is_batch)
        if isinstance(expected, Admitted):
            assert answer.admission in (Admission.ASSIGNED, Admission.WAITING), (load, limits)
        else:
            assert answer.admission is ANSWERS[expected.reason], (load, limits, is_batch)
            told = {
                Refusal.TENANT_SHARE: load.num_waiting_of_tenant,
                Refusal.BUFFER_FULL: load.num_waiting,
                Refusal.WAIT_TOO_LONG: estimated_wait_ms(load),
            }
            assert answer.number == told[expected.reason]
        answers[answer.admission] += 1
        keys = [key async for key in pool.redis.scan_iter(f"{pool.keys.base}*", count=1_000)]
        if keys:
            await pool.redis.unlink(*keys)
    print(dict(answers))
    assert {Admission.ASSIGNED, Admission.WAITING, *ANSWERS.values()} == set(answers)
