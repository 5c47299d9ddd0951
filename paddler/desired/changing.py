"""Changes of a desired state as an operator asks for them: the whole of it, a part, an earlier one."""

from __future__ import annotations

from collections.abc import Callable

from paddler.desired.schema import BalancerDesiredState, Versioned
from paddler.desired.store import DesiredStates
from paddler.errors import VersionConflict

PATCH_TRIES = 5


async def put(
    states: DesiredStates, pool: str, state: BalancerDesiredState, *, expected: int | None, author: str
) -> Versioned:
    """Raises as `DesiredStates.write`."""
    return await _now(states, pool, await states.write(pool, state, expected=expected, author=author))


async def change(
    states: DesiredStates,
    pool: str,
    changed: Callable[[BalancerDesiredState], BalancerDesiredState],
    *,
    expected: int | None,
    author: str,
) -> Versioned:
    """Write what `changed` makes of the state. Without `expected` it is made again of what somebody else has written
    meanwhile, so that of two changes of different fields both count. Raises what `changed` raises, and as
    `DesiredStates.write`."""
    tries = PATCH_TRIES
    while True:
        found = await states.read(pool)
        version = found.version if expected is None else expected
        try:
            return await _now(
                states, pool, await states.write(pool, changed(found.state), expected=version, author=author)
            )
        except VersionConflict:
            tries -= 1
            if expected is not None or not tries:
                raise


async def roll_back(states: DesiredStates, pool: str, version: int, *, expected: int | None, author: str) -> Versioned:
    """Raises as `DesiredStates.roll_back`."""
    return await _now(states, pool, await states.roll_back(pool, version, expected=expected, author=author))


async def _now(states: DesiredStates, pool: str, version: int) -> Versioned:
    """What was written, which somebody else may have changed since."""
    found = await states.read(pool)
    return found if found.version == version else await states.at(pool, version)
