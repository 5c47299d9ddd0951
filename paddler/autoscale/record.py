"""What an autoscaler leaves for the next one, and for `paddler autoscale --status`: one JSON string a pool in Redis.

It is written before an agent is started, so that one whose autoscaler died meanwhile is waited for and not started
twice, and says for how long things have been as they are, since clocks of two machines differ.
"""

from __future__ import annotations

import contextlib

import msgspec
from msgspec import Struct
from redis.exceptions import WatchError

from paddler.autoscale.instance import Instance, Phase
from paddler.autoscale.policy import Policy
from paddler.autoscale.scaler import Scaler
from paddler.store.autoscale_keys import autoscale_key, autoscale_lease_key
from paddler.store.client import Store

RECORD_TTL_S = 86_400
NUM_TRIES = 3


class KeptInstance(Struct, frozen=True, kw_only=True):
    """`for_s` is how long it has been in its phase."""

    name: str
    phase: Phase
    for_s: float
    agent_id: str = ""
    host: str = ""
    pid: int | None = None
    is_known: bool = False
    trouble: str = ""


class Record(Struct, frozen=True, kw_only=True):
    """`who` is the autoscaler, `at_ms` when it wrote this by its clock. `retry_in_s` is how long no agent is started
    after the last of `failures`; `held` says why none is although one is needed. `drained` are names of agents that
    autoscalers have drained: not by an operator, then."""

    who: str
    host: str
    pid: int
    driver: str
    at_ms: int
    policy: Policy
    demand: int
    wanted: int
    instances: tuple[KeptInstance, ...] = ()
    failures: int = 0
    trouble: str = ""
    retry_in_s: float = 0.0
    held: str = ""
    drained: tuple[str, ...] = ()


def kept_instances(scaler: Scaler, now: float) -> tuple[KeptInstance, ...]:
    return tuple(_kept(one, now) for one in scaler.instances.values())


def _kept(one: Instance, now: float) -> KeptInstance:
    agent = one.agent
    return KeptInstance(
        name=one.name,
        phase=one.phase,
        for_s=round(now - one.since, 1),
        agent_id=agent.agent_id if agent else "",
        host=one.host,
        pid=one.pid,
        is_known=one.is_known,
        trouble=agent.trouble if agent else "",
    )


def restore(scaler: Scaler, record: Record, now: float) -> None:
    """Go on with what another autoscaler had begun. What it was starting is started and what it was stopping is
    stopped, once more perhaps."""
    scaler.instances.clear()
    scaler.drained = set(record.drained)
    for kept in record.instances:
        since = now - kept.for_s
        instance = Instance(kept.name, kept.phase, since, pid=kept.pid, host=kept.host, is_known=kept.is_known)
        if kept.phase is Phase.STOPPING:
            instance.stop_at = now
        instance.is_resumed = instance.is_due = kept.phase is Phase.LAUNCHING
        scaler.instances[kept.name] = instance
    if record.failures:
        scaler.backoff.resume(record.failures, record.trouble, now, record.retry_in_s)


class Records:
    """Those of one pool. Every call raises what Redis raises."""

    def __init__(self, store: Store, pool: str) -> None:
        keys = store.pool(pool).keys
        self._store = store
        self._key, self.lease_key = autoscale_key(keys), autoscale_lease_key(keys)

    async def read(self) -> Record | None:
        """None: there is none, or one that this version cannot read."""
        found: bytes | None = await self._store.redis.get(self._key)
        try:
            return None if found is None else msgspec.json.decode(found, type=Record)
        except msgspec.MsgspecError:
            return None

    async def write(self, record: Record) -> bool:
        """Whether it is there now: not where another autoscaler holds the lease, or nobody does.

        A transaction and no script, which is not there before a balancer of this version has loaded it."""
        for _ in range(NUM_TRIES):
            async with self._store.redis.pipeline() as pipe:
                await pipe.watch(self.lease_key)
                if _text(await pipe.get(self.lease_key)) != record.who:
                    return False
                pipe.multi()
                pipe.set(self._key, msgspec.json.encode(record), ex=RECORD_TTL_S)
                with contextlib.suppress(WatchError):  # we have prolonged it, or somebody else has it
                    await pipe.execute()
                    return True
        return False

    async def holder(self) -> str:
        """Which autoscaler acts; empty when none does."""
        return _text(await self._store.redis.get(self.lease_key))


def _text(found: bytes | None) -> str:
    return (found or b"").decode()
