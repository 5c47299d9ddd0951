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


FIRST = (
    "No model is wanted yet: the starter model, SmolLM2-135M-Instruct, is the first. `paddler model use` takes another."
)
MOVED = "The starter model that was wanted is not at {path} any more; it is found again at {now}."
ELSEWHERE = (
    "The model that is wanted, {path}, is not on this machine: another `paddler up` on this Redis has set it. It is "
    "left as it is; `paddler model use` takes another."
)


def _lost_path(found: Versioned) -> str | None:
    """Of a model that `paddler up` has set, where that is not there."""
    model = found.state.model
    path = model.LocalToAgent if isinstance(model, GivenModel) else None
    return path if found.author == AUTHOR and path is not None and not Path(path).exists() else None


async def seed(
    store: Store,
    find_starter: Callable[[], Path],
    clock: Clock,
    database: StateDatabase = MEMORY,
    *,
    is_own: bool = True,
) -> str | None:
    """Give the pool the starter model if nobody has ever given it a state. Returns what to say of it, if anything.

    With `is_own`, a Redis that is this machine's alone, also if that model has moved since it was written here (a new
    environment has it elsewhere); of a shared one it may be at its place on another host. Not if `database` is a file
    that has a state: the balancer takes that one where there is none, and a state of ours would be written over it.
    Waits for Redis. Raises `CannotStart` when there is no starter model."""
    states = DesiredStates(store, clock)
    has_file = database.path is not None and StateFile(database.path).load() is not None
    while True:
        try:
            found = await states.read(DEFAULT_POOL)
            lost = _lost_path(found)
            if (found.version or has_file) and (lost is None or not is_own):
                return None if lost is None else ELSEWHERE.format(path=lost)
            path = str(find_starter())
            state = BalancerDesiredState(model=GivenModel(LocalToAgent=path))
            await states.write(DEFAULT_POOL, state, expected=found.version, author=AUTHOR)
            return FIRST if lost is None else MOVED.format(path=lost, now=path)
        except VersionConflict:
            return None  # somebody else was faster, and knows what they want
        except TROUBLE:
            await clock.sleep(RETRY_S)
