"""What `paddler up` without a model leaves in Redis for its agents to follow, and what it leaves alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paddler.clock import SystemClock
from paddler.desired.database import StateDatabase
from paddler.desired.file import StateFile
from paddler.desired.schema import BalancerDesiredState, GivenModel
from paddler.desired.store import DesiredStates
from paddler.store.client import Store
from paddler.store.desired_keys import DesiredKeys
from paddler.up.problems import CannotStart
from paddler.up.seed import AUTHOR, FIRST, seed

pytestmark = pytest.mark.anyio


@pytest.fixture
async def states(store: Store) -> AsyncIterator[DesiredStates]:
    yield DesiredStates(store)
    keys = DesiredKeys(store.pool("default").keys.base)
    await store.redis.delete(keys.desired(), keys.history())


async def test_the_starter_model_is_wanted_at_first(store: Store, states: DesiredStates, tmp_path: Path) -> None:
    model = tmp_path / "starter.gguf"
    model.write_bytes(b"GGUF")
    assert await seed(store, lambda: model, SystemClock(), is_own=False) == FIRST
    found = await states.read("default")
    assert (found.version, found.author) == (1, AUTHOR)
    assert found.state == BalancerDesiredState(model=GivenModel(LocalToAgent=str(model)))
    assert await seed(store, lambda: tmp_path / "another", SystemClock()) is None
    assert (await states.read("default")).version == 1


async def test_what_somebody_wants_is_left_alone(store: Store, states: DesiredStates, tmp_path: Path) -> None:
    def none() -> Path:
        raise CannotStart("there is none")

    state = BalancerDesiredState(model=GivenModel(LocalToAgent="/nowhere"))
    await states.write("default", state, expected=None, author="operator")
    await seed(store, none, SystemClock())
    assert (await states.read("default")).state == state


async def test_a_file_with_a_state_is_the_first(store: Store, states: DesiredStates, tmp_path: Path) -> None:
    """The balancer takes it. A state of ours before it would be written over the file."""
    database = StateDatabase("file", tmp_path / "state.json")
    StateFile(tmp_path / "state.json").save(BalancerDesiredState(model=GivenModel(LocalToAgent="/mine")))
    await seed(store, lambda: tmp_path / "starter.gguf", SystemClock(), database)
    assert (await states.read("default")).version == 0
    (tmp_path / "state.json").unlink()
    await seed(store, lambda: tmp_path / "starter.gguf", SystemClock(), database)
    assert (await states.read("default")).author == AUTHOR


async def test_a_starter_that_has_moved_is_found_again(store: Store, states: DesiredStates, tmp_path: Path) -> None:
    """A new environment has it elsewhere."""
    await seed(store, lambda: tmp_path / "gone.gguf", SystemClock())
    told = await seed(store, lambda: tmp_path / "new.gguf", SystemClock())
    assert told is not None
    assert "gone.gguf" in told
    assert "new.gguf" in told
    assert (await states.read("default")).state.model == GivenModel(LocalToAgent=str(tmp_path / "new.gguf"))


async def test_what_another_host_has_seeded_is_left_alone(store: Store, states: DesiredStates, tmp_path: Path) -> None:
    """On a shared Redis its model is where it was, on that host; agents there serve it."""
    theirs = tmp_path / "theirs.gguf"
    await seed(store, lambda: theirs, SystemClock(), is_own=False)
    told = await seed(store, lambda: tmp_path / "ours.gguf", SystemClock(), is_own=False)
    found = await states.read("default")
    assert (found.version, found.state.model) == (1, GivenModel(LocalToAgent=str(theirs)))
    assert told is not None
    assert str(theirs) in told
    assert "paddler model use" in told


async def test_without_a_starter_model_the_remedy_is_told(store: Store, states: DesiredStates) -> None:
    def none() -> Path:
        raise CannotStart("pip install it")

    with pytest.raises(CannotStart, match="pip install it"):
        await seed(store, none, SystemClock())
