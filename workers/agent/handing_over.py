"""What a leaving agent does so that the next one restores what it would have to compute."""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf

from paddler.clock import Clock
from paddler.logs import get_logger
from workers.agent.engine_thread import EngineThread
from workers.agent.passing_thread import in_passing_thread
from workers.agent.restoring import RAM

log = get_logger(__name__)


async def save_states(thread: EngineThread, clock: Clock, grace_s: float) -> None:
    """Give the states of all that runs to the tiers, and wait until they are written, for `grace_s` in all. Nothing
    without tiers behind host memory: who is gone gives nothing to anybody."""
    engine = thread.engine
    if grace_s <= 0 or all(one.tier == RAM for one in engine.tiers):
        return
    end, is_written = clock.monotonic() + grace_s, False
    try:
        # A step that hangs is not waited for; neither is an engine that has failed.
        async with asyncio.timeout(grace_s):
            # What is computed while the most of it is written is little, and written in no time.
            num_times, least = 2, inf
            while num_times:
                num_refused = await thread.save_running()
                left_s = max(end - clock.monotonic(), 0.0)
                is_written = await in_passing_thread(partial(engine.flush_states, left_s)) and num_refused == 0
                # What had no room on its way has some now; where nothing is taken, it does not become less.
                num_times -= not 0 < num_refused < least
                least = num_refused or inf
    except TimeoutError:
        pass
    if not is_written:
        log.warning("not all states were saved in time: some tokens are computed again", grace_s=grace_s)
