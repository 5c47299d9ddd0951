"""An agent that follows its pool, while it serves nothing: it stands there without slots, says what it waits for or how
far its loading is, keeps its lease and answers what an operator asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

from paddler.clock import Clock
from paddler.engine import Engine
from paddler.store.client import Store
from paddler.store.pipe import Value
from paddler.store.scripts import PoolScripts
from paddler.wire.agent import Ask
from workers.agent.control import hear
from workers.agent.loader import Loader
from workers.agent.membership import Membership
from workers.agent.retrying import repeat
from workers.agent.standing import Standing
from workers.agent.starting import TELL_S
from workers.agent.telling import tell


class Anteroom:
    """In the place of `membership`, whose snapshot has no slots."""

    def __init__(
        self, store: Store, pool: PoolScripts, membership: Membership, clock: Clock, standing: Standing
    ) -> None:
        self.membership = membership
        self._store = store
        self._pool = pool
        self._clock = clock
        self._standing = standing
        self._loader: Loader | None = None
        self._model_path = ""

    async def run(self) -> None:
        """For as long as the agent waits or loads."""
        await asyncio.gather(
            repeat(self.run_tell_once, self._clock, on_trouble=self.membership.lost_touch),
            repeat(self._hear, self._clock, on_trouble=self.membership.lost_touch),
        )

    async def load(self, loader: Loader, model_path: str) -> Engine:
        """Load, visibly. Raises as `Loader.run`."""
        self._loader, self._model_path = loader, model_path
        self._standing.changed.set()
        try:
            return await loader.run()
        finally:
            self._loader = None
            self._standing.changed.set()

    async def interrupted(self) -> None:
        if self._loader is not None:
            await self._loader.interrupted()

    @property
    def is_loading(self) -> bool:
        return self._loader is not None

    async def run_tell_once(self) -> None:
        """Publish how it stands, and renew the lease; register first, and again if the lease was over."""
        self._standing.changed.clear()
        if not self.membership.agent_id or await self.membership.renew(self.snapshot()) is None:
            await self.membership.register()
            await self.membership.renew(self.snapshot())
        try:
            async with asyncio.timeout(min(TELL_S, self.membership.lease_ms / 4000)):
                await self._standing.changed.wait()
        except TimeoutError:
            pass

    def snapshot(self) -> Mapping[str, Value]:
        """The fields of the agent's hash that change."""
        if self._loader is not None:
            state, phase, progress = "loading", self._loader.phase.value, round(self._loader.fraction, 3)
        else:
            state, phase, progress = "failed" if self._standing.issues else "waiting", "", 0
        told = {"state": state, "phase": phase, "progress": progress, "model_path": self._model_path}
        return {**self._standing.fields(), **told}

    async def _hear(self) -> None:
        """Listen under the present id; a new registration listens anew."""
        agent_id = self.membership.agent_id
        if not agent_id:
            await self._clock.sleep(TELL_S / 10)
            return
        async with aclosing(hear(self._store, self._pool.keys.control(agent_id))) as messages:
            async for message in messages:
                if isinstance(message, Ask):
                    await tell(self._pool, message, metadata=None, override=None)
                if agent_id != self.membership.agent_id:
                    return
