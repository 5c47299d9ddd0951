"""Names that `model` in a request may have for a pool, and that no two pools may share.

Looked at before a state is written. Two writers of two pools may still be between that and their writing: then the pool
that is first by name has the alias (`paddler/jobs/models.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from paddler.desired.schema import BalancerDesiredState
from paddler.errors import Conflict
from paddler.settings import DEFAULT_POOL
from paddler.store.client import Store

ReadAliases = Callable[[Sequence[str]], Awaitable[dict[str, tuple[str, ...]]]]


async def check_aliases(store: Store, pool: str, state: BalancerDesiredState, read: ReadAliases) -> None:
    """Raises `Conflict` for an alias that is another pool's name or alias; raises what Redis raises."""
    if not state.aliases:
        return
    others = {DEFAULT_POOL, *await store.pool_names()} - {pool}
    taken = {name: name for name in others}
    for name, aliases in (await read(sorted(others))).items():
        taken.update(dict.fromkeys(aliases, name))
    for alias in state.aliases:
        if alias in taken:
            what = "is a pool" if taken[alias] == alias else f"stands for the pool {taken[alias]}"
            raise Conflict(
                f"`aliases`: {alias!r} {what}: choose another name, or take it there first.", param="aliases"
            )
