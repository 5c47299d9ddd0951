"""Agents that come back, are drained by somebody, or are somebody else's to act on: what the scaler makes of them."""

from __future__ import annotations

from scaler_world import COOLDOWN_S, World

from paddler.autoscale.effects import Drain, Start, Stop, Undrain
from paddler.autoscale.instance import Phase
from paddler.autoscale.scaler import MISSING_S, STILL_S
from paddler.autoscale.seen import Condition


def test_one_that_an_operator_drains_leaves_its_place_to_another() -> None:
    world = World(most=1)
    world.run("auto-1")
    world.joins("auto-1", is_draining=True)
    assert world.look(demand=1) == [Start("auto-2")]
    world.starts("auto-2")
    assert world.look(demand=100) == [], "now there are as many as may be"


def test_one_that_is_stuck_and_drained_by_an_operator_holds_nobody_up() -> None:
    world = World()
    world.look(demand=1)
    world.starts("auto-1", Condition.STUCK, trouble="ModelFileDoesNotExist: nowhere.gguf")
    world.look()
    assert world.look(demand=8) == []
    assert "ModelFileDoesNotExist" in world.scaler.held
    world.joins("auto-1", Condition.STUCK, is_draining=True)
    assert world.look(1) == [Start("auto-2")]


def test_what_we_have_drained_and_forgotten_goes_on_draining() -> None:
    """Gone for a minute, stopped as far as anybody could see, and back: Redis has kept its drain."""
    world = World(most=1, ends_with_us=False)
    world.run("auto-1")
    world.look(demand=0)
    world.look(COOLDOWN_S)
    world.agents.clear()
    world.look()
    assert world.look(MISSING_S) == [Stop("auto-1")]
    world.act(world.scaler.on_stopped("auto-1", world.now))
    world.look()
    assert world.scaler.instances == {}
    world.joins("auto-1", is_draining=True)
    assert world.look(demand=1) == [Undrain("id-auto-1")], "it is ours to call back"
    world.joins("auto-1")
    world.look()
    world.joins("auto-1", is_draining=True)
    assert world.look() == [Start("auto-2")], "this drain is an operator's"


def test_one_that_comes_back_while_it_is_being_stopped_is_drained_first() -> None:
    """It was given up without a drain, its stop failed, and it has taken requests since."""
    world = World(ends_with_us=False)
    world.run("auto-1")
    world.agents.clear()
    world.look()
    assert world.look(MISSING_S, demand=0) == [Stop("auto-1")]
    world.act(world.scaler.on_stop_failed("auto-1", "exited with code 1", world.now))
    world.joins("auto-1", requests=1)
    assert world.look(5) == [Drain("id-auto-1")]
    world.drained("auto-1")
    assert world.look(3600) == [], "its request still runs"
    world.joins("auto-1", is_draining=True)
    assert world.look() == [Stop("auto-1")]


def test_one_that_comes_too_late_is_drained_before_it_is_stopped_again() -> None:
    """The stop command takes long, and the agent comes meanwhile."""
    world = World(ends_with_us=False)
    world.look(demand=1)
    world.act(world.scaler.on_started("auto-1", world.now))
    assert world.look(100) == [Stop("auto-1")]
    world.joins("auto-1", requests=1)
    world.look(demand=0)
    world.act(world.scaler.on_stop_failed("auto-1", "has not ended within 120 s", world.now))
    assert world.look(5) == [Drain("id-auto-1")]
    assert world.look(demand=1) == [Undrain("id-auto-1")], "it may as well serve"
    world.joins("auto-1", requests=1)
    assert world.look(3600) == []
    assert world.phase("auto-1") is Phase.UP


def test_one_that_somebody_starts_again_is_drained_before_it_is_stopped_again() -> None:
    world = World(ends_with_us=False)
    world.run("auto-1")
    world.look(demand=0)
    world.look(COOLDOWN_S)
    world.drained("auto-1")
    world.look()
    world.act(world.scaler.on_stopped("auto-1", world.now))
    world.joins("auto-1", requests=2)
    assert world.look(STILL_S) == [Drain("id-auto-1")]
    world.joins("auto-1", Condition.OTHER, is_draining=True)
    assert world.look() == [Stop("auto-1")]
    world.act(world.scaler.on_stop_failed("auto-1", "exited with code 1", world.now))
    world.joins("auto-1", Condition.OTHER)
    assert world.look(5) == [Stop("auto-1")], "one that leaves takes nothing, and cannot be drained"


def test_what_may_not_be_done_is_decided_anew() -> None:
    """Another autoscaler acts, or Redis does not take the record."""
    world = World(ends_with_us=False)
    assert world.look(demand=1) == [Start("auto-1")]
    world.scaler.on_held_back("auto-1", world.now)
    assert world.look() == [Start("auto-1")]
    world.starts("auto-1")
    world.look(demand=0)
    world.look(COOLDOWN_S)
    world.drained("auto-1")
    assert world.look() == [Stop("auto-1")]
    world.scaler.on_held_back("auto-1", world.now)
    assert world.look() == [Stop("auto-1")]
    world.scaler.on_held_back("auto-1", world.now)
    world.joins("auto-1", requests=1)
    assert world.look() == [Drain("id-auto-1")], "somebody has called it back meanwhile"
