"""The first desired state of a fleet that was started without a word about its model: the starter model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from paddler.clock import Clock
from paddler.desired.database import MEMORY, StateDatabase
from paddler.desired.file import StateFile
from paddler.desired.schema import BalancerDesiredState, GivenModel, Versioned
from paddler.desired.store import DesiredStates
from paddler.errors import VersionConflict
from paddler.settings import DEFAULT_POOL
from paddler.store.client import TROUBLE, Store

AUTHOR = "paddler up"
RETRY_S = 0.2


def _is_lost(found: Versioned) -> bool:
    model = found.state.model
    path = model.LocalToAgent if isinstance(model, GivenModel) else None
    return found.author == AUTHOR and path is not None and not Path(path).exists()


async def seed(store: Store, find_starter: Callable[[], Path], clock: Clock, database: StateDatabase = MEMORY) -> None:
    """Give the pool the starter model if nobody has ever given it a state, or if it has moved since it was written
    here (a new environment has it elsewhere). Not if `database` is a file that has a state: the balancer takes that one
    where there is none, and a state of ours would be written over it. Waits for Redis. Raises `CannotStart` when there
    is no starter model."""
    states = DesiredStates(store, clock)
    has_file = database.path is not None and StateFile(database.path).load() is not None
    while True:
        try:
            found = await states.read(DEFAULT_POOL)
            if (found.version or has_file) and not _is_lost(found):
                return
            given = GivenModel(LocalToAgent=str(find_starter()))
            await states.write(DEFAULT_POOL, BalancerDesiredState(model=given), expected=found.version, author=AUTHOR)
            return
        except VersionConflict:
            return  # somebody else was faster, and knows what they want
        except TROUBLE:
            await clock.sleep(RETRY_S)
