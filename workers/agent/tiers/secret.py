"""The fleet's secret: what keys the names of saved states, their envelope, and what agents ask of each other.

32 random bytes in the queue's Redis, of one pool: who may read them there may read the prompts themselves. They are
made once, by the first agent that saves anything. Should Redis lose them, states of before are never found again, and
new ones are saved under new names.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from paddler.store.scripts import PoolScripts

SECRET_SIZE = 32
"""Bytes."""


async def fleet_secret(pool: PoolScripts) -> bytes:
    """That of the pool; made, if there is none. Raises what Redis raises."""
    key = pool.keys.kv_secret()
    found: bytes | None = await pool.redis.get(key)
    if found is None:
        # Of two agents that make one at once, both take the first.
        await pool.redis.set(key, secrets.token_bytes(SECRET_SIZE), nx=True)
        found = await pool.redis.get(key)
    if found is None or len(found) != SECRET_SIZE:
        raise ValueError(f"{key} in Redis is no secret of {SECRET_SIZE} bytes; delete it, and agents make a new one")
    return found


def derived(secret: bytes, purpose: str) -> bytes:
    """A key for one purpose alone."""
    return hmac.digest(secret, purpose.encode(), hashlib.sha256)
