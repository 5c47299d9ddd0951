"""What balancers and workers know of pools' desired states, at most a second or two old."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct, structs

from paddler.clock import Clock
from paddler.desired.sampling import sampling_of, with_defaults
from paddler.desired.schema import BalancerDesiredState, Versioned
from paddler.desired.store import DesiredStates
from paddler.errors import QueueUnavailable
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store
from paddler.wire.agent import Generate, Sampling

log = get_logger(__name__)

REFRESH_S = 1.0
PATIENCE_S = 8.0


class DesiredPool(Struct, frozen=True):
    """`is_set` False: nobody has set a state, `state` is the defaults. `sampling` is what requests get that say nothing
    of it."""

    is_set: bool = False
    state: BalancerDesiredState = BalancerDesiredState()
    sampling: Sampling = Sampling()


class DesiredView:
    """Reads a pool's state when somebody asks and the last reading is old."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._states = DesiredStates(store, clock)
        self._clock = clock
        self._turn = asyncio.Lock()
        self._known: dict[str, tuple[float, Versioned, DesiredPool]] = {}

    async def pool(self, name: str) -> DesiredPool:
        """Raises what Redis raises."""
        entry = self._known.get(name)
        if entry is None:
            # Those that come meanwhile wait: none may go with defaults that are not the pool's.
            async with self._turn:
                entry = self._known.get(name)
                return entry[2] if entry is not None else await self._read(name, Versioned(version=0), DesiredPool())
        read_at, last, known = entry
        now = self._clock.monotonic()
        if now - read_at < REFRESH_S:
            return known
        # Before the first await: others go on with the old view while this one reads.
        self._known[name] = (now, last, known)
        return await self._read(name, last, known)

    async def told(self, name: str) -> DesiredPool:
        """As `pool`, but raises `QueueUnavailable`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.pool(name)
        except TROUBLE as error:
            raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error

    async def fill(self, name: str, request: Generate) -> Generate:
        """With the pool's sampling where the request says nothing of it. Raises as `told`."""
        sampling = with_defaults(request.sampling, (await self.told(name)).sampling)
        return structs.replace(request, sampling=sampling)

    async def _read(self, name: str, last: Versioned, known: DesiredPool) -> DesiredPool:
        try:
            found = await self._states.read(name)
        except msgspec.MsgspecError as error:
            log.error("cannot read the desired state: is it of a newer Paddler?", pool=name, error=str(error))
            found = last
        if found != last:
            known = DesiredPool(found.version > 0, found.state, sampling_of(found.state.inference_parameters))
        self._known[name] = (self._clock.monotonic(), found, known)
        return known
