"""Is this Redis set up to hold a queue? Asked once by every process that connects, and said in words."""

from __future__ import annotations

from redis.exceptions import ResponseError

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store, is_refusal

log = get_logger(__name__)

RETRY_S = 1.0

EVICTION = (
    "Redis may evict keys when it is full, and an evicted key is a lost request: set `maxmemory-policy noeviction` "
    "(CONFIG SET maxmemory-policy noeviction, and in redis.conf)"
)
NO_AOF = (
    "Redis writes no append-only file, so a restart of it loses the queue: set `appendonly yes` "
    "(CONFIG SET appendonly yes, and in redis.conf)"
)


async def find_faults(store: Store) -> list[str]:
    """What is wrong with its settings, as far as it tells. Raises what Redis raises when it cannot be reached."""
    policy, has_aof = await _settings(store)
    faults: list[str] = []
    if policy not in (None, "noeviction"):
        faults.append(f"maxmemory-policy is {policy}. {EVICTION}")
    if has_aof is False:
        faults.append(f"appendonly is no. {NO_AOF}")
    return faults


async def warn_of_faults(store: Store, clock: Clock) -> None:
    """Wait until Redis answers, then log each fault once."""
    while True:
        try:
            faults = await find_faults(store)
        except TROUBLE:
            await clock.sleep(RETRY_S)
            continue
        for fault in faults:
            log.warning(fault)
        return


async def _settings(store: Store) -> tuple[str | None, bool | None]:
    """The eviction policy and whether there is an AOF; None for what it does not tell. INFO first: CONFIG tells
    passwords as well, so that many forbid it and our own ACL does."""
    for ask in (_by_info, _by_config):
        try:
            return await ask(store)
        except ResponseError as error:
            if not is_refusal(error):
                raise
    return None, None


async def _by_config(store: Store) -> tuple[str | None, bool | None]:
    found: dict[str, str] = {}
    for name in ("maxmemory-policy", "appendonly"):
        found |= {_text(key): _text(value) for key, value in (await store.redis.config_get(name)).items()}
    if len(found) < 2:
        raise ResponseError("CONFIG GET tells only a part")
    return found["maxmemory-policy"], found["appendonly"] == "yes"


async def _by_info(store: Store) -> tuple[str | None, bool | None]:
    memory = await store.redis.info("memory")
    persistence = await store.redis.info("persistence")
    if "maxmemory_policy" not in memory or "aof_enabled" not in persistence:
        raise ResponseError("INFO tells only a part")
    return memory["maxmemory_policy"], bool(persistence["aof_enabled"])


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
