"""An agent that follows the desired state of its pool: it waits for a model, serves it, and changes it in its turn.

1. **Wait**, in the pool and without slots, until a state wants a model and its files are there and looked at.
2. **Load**, and register with slots. What cannot be loaded is refused until something changes; the model that was
   served before is loaded again.
3. **Serve.** `preparation.py` makes the next state ready meanwhile. A change that does not reach the engine is applied
   at once, a chat template between two steps.
4. **Turn**: wait until enough other slots are ready (`paddler.store.scripts_turns`), unless all change at once.
5. **Leave**: no request is given to this agent any more; what runs may end within the grace time and is handed over
   then, as on SIGTERM (life of a request, step 11). The engine is closed and its memory given back. On to 2.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from paddler import logs
from paddler.clock import Clock
from paddler.engine import Engine, ModelError
from paddler.engine_settings import EngineSettings
from paddler.ids import new_process_id
from paddler.logs import get_logger
from paddler.presence import present
from paddler.store.client import Store
from workers.agent.anteroom import Anteroom
from workers.agent.loader import Build, Loader, LoadStalled
from workers.agent.loop import AgentLoop
from workers.agent.mark import StartMark
from workers.agent.membership import Membership
from workers.agent.preparation import Preparation, Prepared
from workers.agent.serving import AgentSettings, Signals, die_hanging, serve_engine, shared, withdraw
from workers.agent.standing import Standing
from workers.agent.starting import let_go
from workers.agent.turns import Turn
from workers.agent.wanted import needs_reload

if TYPE_CHECKING:
    from workers.agent.tiers.sharing import Sharing

log = get_logger(__name__)


class Follower:
    """One process. `build` makes the build of an engine from settings that were checked."""

    def __init__(
        self,
        store: Store,
        settings: AgentSettings,
        preparation: Preparation,
        build: Callable[[EngineSettings], Build],
        standing: Standing,
        clock: Clock,
        signals: Signals,
        sharing: Sharing | None = None,
    ) -> None:
        self._store = store
        self._pool = store.pool(settings.pool)
        self._settings = settings
        self._preparation = preparation
        self._build = build
        self._standing = standing
        self._clock = clock
        self._signals = signals
        self._sharing = sharing
        self._turn = Turn(
            store.turns(settings.pool),
            clock,
            holder=new_process_id("turn"),
            slots=settings.slots,
            lease_ms=settings.lease_ms,
        )
        self._served: Prepared | None = None
        """What is loaded, or was before it made room."""

    async def run(self) -> int:
        """Until a signal or a failed engine: the exit code."""
        sharing = shared(self._sharing, self._clock, self._signals)
        async with present(self._store, self._clock, "agent", self._settings.name), sharing:
            return await self._run()

    async def _run(self) -> int:
        loops = [asyncio.create_task(one) for one in (self._preparation.watch_loop(), self._preparation.prepare_loop())]
        living = asyncio.create_task(self._live())
        try:
            await asyncio.wait({living, *loops}, return_when=asyncio.FIRST_COMPLETED)
            for loop in loops:
                if loop.done():
                    log.error("a loop of the agent failed", exc_info=loop.exception())
                    return 1
            return living.result()
        finally:
            for task in (living, *loops):
                task.cancel()
            await asyncio.gather(living, *loops, return_exceptions=True)
            await self._turn.end()

    async def _live(self) -> int:
        while not self._signals.stopping.is_set():
            engine = await self._enter()
            if engine is None:
                return 0
            code = await self._serve(engine)
            if code is not None:
                return code
            del engine
            await asyncio.to_thread(gc.collect)  # engine and context are in cycles; the next one needs their memory
        return 0

    async def _serve(self, engine: Engine) -> int | None:
        served = self._served
        assert served is not None
        try:
            return await serve_engine(
                self._store,
                engine,
                self._settings,
                self._clock,
                self._signals,
                files=served.files,
                standing=self._standing,
                until=self._until_turn,
                sharing=self._sharing,
            )
        finally:
            self._turn.agent_id = lambda: ""  # the other one knows the agent, and so the engine

    # Steps 1 and 2

    async def _enter(self) -> Engine | None:
        """An engine, its place in the pool given up; None when the agent was told to stop."""
        snapshot = {"state": "waiting", "slots": 0, "name": self._settings.name, **self._settings.origin(())}
        lease_ms = self._settings.lease_ms
        membership = Membership(self._store, self._pool, self._clock, lease_ms=lease_ms, model="", snapshot=snapshot)
        membership.on_removed = self._signals.stopping.set
        self._turn.agent_id = lambda: membership.agent_id
        self._standing.serves_nothing()
        anteroom = Anteroom(self._store, self._pool, membership, self._clock, self._standing)
        telling = asyncio.create_task(anteroom.run())
        loading = asyncio.create_task(self._load(anteroom))
        stop = asyncio.create_task(self._signals.stopping.wait())
        await asyncio.wait({telling, loading, stop}, return_when=asyncio.FIRST_COMPLETED)
        is_loading = anteroom.is_loading
        for task in (telling, stop):
            task.cancel()
        told, _ = await asyncio.gather(telling, stop, return_exceptions=True)
        await withdraw(membership, *([] if loading.done() else [anteroom.interrupted(), self._turn.end()]))
        if loading.done() and isinstance(error := loading.exception(), LoadStalled):
            log.critical("the loading hangs; this process ends", how=str(error))
            die_hanging()
        if loading.done():
            return loading.result()
        if isinstance(told, Exception):
            raise told
        if is_loading:
            log.info("stopped while loading")
            logs.flush()
            os._exit(0)  # the loading cannot be interrupted
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        return None

    async def _load(self, anteroom: Anteroom) -> Engine:
        before, tried = self._served, None
        self._served = None
        while True:
            prepared = await self._preparation.differing(tried)
            if prepared.settings is None:
                if prepared.version:
                    self._standing.serves(prepared.version, None)
                self._standing.serves_nothing()
                await self._turn.end()
                tried, before = prepared, None
                continue
            if (engine := await self._try(anteroom, prepared)) is not None:
                return engine
            if before is not None and (engine := await self._try(anteroom, before)) is not None:
                return engine
            await self._turn.end()
            before = None

    async def _try(self, anteroom: Anteroom, prepared: Prepared) -> Engine | None:
        assert prepared.settings is not None
        mark = StartMark(self._store, self._pool.keys, origin=self._settings.mark_origin, files=prepared.files)
        build = self._build(prepared.settings)
        loader = Loader(mark, self._clock, build, stall_s=self._settings.load_stall_s)
        try:
            engine = await anteroom.load(loader, str(prepared.files[0]) if prepared.files else "")
        except ModelError as error:
            self._preparation.refuse(prepared, error)
            let_go(error)
            await asyncio.to_thread(gc.collect)
            return None
        self._served = prepared
        self._standing.serves(prepared.version, prepared.template)
        return engine

    # Steps 3 and 4

    async def _until_turn(self, agent: AgentLoop) -> None:
        """Apply what needs no reload; return when this agent is to make room for what does."""
        self._turn.agent_id = lambda: agent.agent_id
        await self._turn.end()
        while True:
            served = self._served
            prepared = await self._preparation.differing(served)
            assert served is not None
            if needs_reload(served.settings, prepared.settings):
                is_given = await self._turn.wait(
                    at_once=prepared.wanted.is_at_once,
                    version=prepared.version,
                    is_wanted=lambda prepared=prepared: self._preparation.ready is prepared,
                    on_lost=lambda number, prepared=prepared: self._standing.holds_back(
                        number, str(prepared.files[0]) if prepared.files else ""
                    ),
                )
                if is_given:
                    self._standing.tries()
                    log.info("changing the model", version=prepared.version)
                    return
                continue
            if prepared.template != served.template:
                try:
                    await agent.engine.use_template(prepared.template)
                except ModelError as error:
                    self._preparation.refuse(prepared, error)
                    continue
            self._served = prepared
            self._standing.serves(prepared.version, prepared.template)
