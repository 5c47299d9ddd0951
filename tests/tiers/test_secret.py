"""The fleet's secret: made once, whoever asks first, and the same for all agents of a pool."""

from __future__ import annotations

import asyncio

import pytest

from paddler.store.client import Store
from workers.agent.tiers.secret import SECRET_SIZE, derived, fleet_secret

pytestmark = pytest.mark.anyio


async def test_all_agents_of_a_pool_have_the_same(any_store: Store) -> None:
    pool = any_store.pool("default")
    found = await asyncio.gather(*(fleet_secret(pool) for _ in range(8)))
    assert len(found[0]) == SECRET_SIZE
    assert set(found) == {await fleet_secret(pool)}
    assert await fleet_secret(any_store.pool("other")) not in found
    await any_store.redis.delete(pool.keys.kv_secret(), any_store.pool("other").keys.kv_secret())
    assert await fleet_secret(pool) not in found
    await any_store.redis.delete(pool.keys.kv_secret())


async def test_what_is_no_secret_is_not_used(store: Store) -> None:
    pool = store.pool("default")
    await store.redis.set(pool.keys.kv_secret(), b"short")
    with pytest.raises(ValueError, match="is no secret of 32 bytes; delete it"):
        await fleet_secret(pool)
    await store.redis.delete(pool.keys.kv_secret())


def test_keys_for_different_purposes_differ() -> None:
    assert len({derived(b"secret", "one"), derived(b"secret", "other"), derived(b"another", "one")}) == 3
