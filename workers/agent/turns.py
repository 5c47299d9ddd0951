"""An agent's turn to change its model: asked for until it is given, kept up while the change goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.client import TROUBLE
from paddler.store.scripts_turns import TurnScripts

log = get_logger(__name__)

ASK_S = 0.5
"""Between two questions, give or take half of it: agents that are told of a state at once need not ask at once."""


class Turn:
    """Of one process. `agent_id` tells its present one, or nothing."""

    def __init__(self, scripts: TurnScripts, clock: Clock, *, holder: str, slots: int, lease_ms: int) -> None:
        self.agent_id: Callable[[], str] = lambda: ""
        self._scripts = scripts
        self._clock = clock
        self._holder = holder
        self._slots = slots
        self._lease_ms = lease_ms
        self._version = 0
        self._keeping: asyncio.Task[None] | None = None

    async def wait(
        self,
        *,
        at_once: bool,
        version: int,
        is_wanted: Callable[[], bool],
        on_lost: Callable[[int], None] = lambda _: None,
    ) -> bool:
        """Until it is given, or is not wanted any more: False. A Redis that is away gives none. `on_lost` is told how
        many agents were lost while they changed to this `version`, which is why none is given for a while."""
        self._version, told = version, 0
        while is_wanted():
            try:
                if await self._ask(at_once=at_once):
                    self._keeping = asyncio.create_task(self._keep())
                    return True
                if (num_lost := await self._scripts.num_lost(version)) != told:
                    told = num_lost
                    on_lost(num_lost)
            except TROUBLE as error:
                log.warning("cannot ask for a turn, trying again", error=str(error))
            await self._clock.sleep(ASK_S * (0.5 + random.random()))
        return False

    async def end(self) -> None:
        """It is over, if there was one. What Redis does not hear ends with its lease."""
        if self._keeping is None:
            return
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        self._keeping = None
        try:
            await self._scripts.end_turn(self._holder)
        except TROUBLE as error:
            log.warning("could not end the turn; its lease will", error=str(error))

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep(self._lease_ms / 4000)
            try:
                # Refused: the lease was over. The model is being changed all the same, and others count it as loading.
                await self._ask(at_once=False)
            except TROUBLE as error:
                log.warning("cannot prolong the turn, trying again", error=str(error))

    async def _ask(self, *, at_once: bool) -> bool:
        return await self._scripts.turn(
            self._holder,
            agent_id=self.agent_id(),
            slots=self._slots,
            lease_ms=self._lease_ms,
            at_once=at_once,
            version=self._version,
        )
