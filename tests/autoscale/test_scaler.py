"""What the scaler decides: events with their time in, effects out. Nothing here waits."""

from __future__ import annotations

import pytest
from scaler_world import COOLDOWN_S, World

from paddler.autoscale.effects import Drain, Start, Stop, Undrain
from paddler.autoscale.instance import STEADY_S, Phase
from paddler.autoscale.scaler import MISSING_S, STILL_S
from paddler.autoscale.seen import Condition


def test_the_first_request_starts_one_agent_and_no_more() -> None:
    world = World()
    assert world.look() == []
    assert world.look(demand=1) == [Start("auto-1")]
    assert world.look(5) == [], "it is being started"
    world.starts("auto-1", Condition.COMING)
    assert world.look(50, demand=4) == [], "one that loads is capacity"
    assert world.look(demand=5) == [Start("auto-2")]
    assert world.look(demand=100) == [Start("auto-3")], "and never more than the most"


def test_the_least_is_there_without_any_request() -> None:
    world = World(least=2)
    assert world.look() == [Start("auto-1"), Start("auto-2")]


def test_agents_of_others_count_and_are_left_alone() -> None:
    world = World()
    world.joins("mine", is_ours=False)
    assert world.look(demand=4) == []
    assert world.look(demand=5) == [Start("auto-1")]
    world.joins("mine", is_ours=False, is_draining=True)
    assert world.look() == [Start("auto-2")], "one that drains serves nobody"
    world.starts("auto-1")
    world.starts("auto-2")
    world.look(demand=0)
    assert world.look(COOLDOWN_S) == [Drain("id-auto-2"), Drain("id-auto-1")]


def test_scale_in_waits_for_the_cooldown_and_for_what_runs() -> None:
    world = World()
    world.run("auto-1", "auto-2")
    world.joins("auto-2", requests=1)
    assert world.look(demand=1) == []
    assert world.look(COOLDOWN_S - 1) == [], "it was needed a moment ago"
    assert world.look(1) == [Drain("id-auto-1")], "the idle one goes, whatever its number"
    assert world.look() == [Drain("id-auto-1")], "until Redis says that it drains"
    world.drained("auto-1")
    assert world.look() == [Stop("auto-1")]
    del world.agents["auto-1"]
    world.act(world.scaler.on_stopped("auto-1", world.now))
    world.look(demand=0)
    assert world.look(COOLDOWN_S) == [Drain("id-auto-2")], "nothing else is there to go"
    world.drained("auto-2")
    assert world.look(3600) == [], "its request still runs"
    world.joins("auto-2", is_draining=True)
    assert world.look() == [Stop("auto-2")]


def test_a_short_lull_stops_nobody() -> None:
    world = World()
    world.run("auto-1", "auto-2")
    for _ in range(20):
        assert world.look(COOLDOWN_S / 2, demand=0) == []
        assert world.look(COOLDOWN_S / 3, demand=8) == []


def test_one_that_drains_is_taken_back_before_another_is_started() -> None:
    world = World()
    world.run("auto-1", "auto-2")
    world.look(demand=0)
    assert world.look(COOLDOWN_S) == [Drain("id-auto-2"), Drain("id-auto-1")]
    world.joins("auto-1", requests=1, is_draining=True)
    world.joins("auto-2", is_draining=True)
    assert world.look() == [Stop("auto-2")]
    assert world.look(demand=8) == [Undrain("id-auto-1"), Start("auto-3")], "auto-2 cannot be called back any more"
    assert world.look() == [Undrain("id-auto-1")], "until Redis says that it takes requests"
    world.joins("auto-1", requests=2)
    assert world.look() == []
    assert world.phase("auto-1") is Phase.UP


def test_one_that_leaves_is_not_called_back_for_ever() -> None:
    world = World()
    world.run("auto-1")
    world.look(demand=0)
    world.look(COOLDOWN_S)
    world.joins("auto-1", requests=1, is_draining=True)
    world.look()
    assert world.look(demand=1) == [Undrain("id-auto-1")]
    world.joins("auto-1", Condition.OTHER, requests=1, is_draining=True)
    assert world.look() == [Start("auto-2")]


def test_while_nobody_can_look_nothing_goes_and_no_time_passes() -> None:
    world = World()
    world.run("auto-1")
    world.look(demand=0)
    world.now += COOLDOWN_S * 2
    world.scaler.on_blind(world.now)
    assert world.look() == [], "who knows what was needed meanwhile"
    assert world.look(COOLDOWN_S - 1) == []
    assert world.look(1) == [Drain("id-auto-1")]


def test_an_outage_does_not_make_agents_missing() -> None:
    """Their leases are over when Redis is back, and all register anew within seconds."""
    world = World()
    world.run("auto-1")
    there = world.agents.pop("auto-1")
    assert world.look(MISSING_S - 1) == []
    world.now += 3600
    world.scaler.on_blind(world.now)
    assert world.look(MISSING_S - 1) == [], "it counts as capacity that comes back"
    world.agents["auto-1"] = there
    assert world.look(MISSING_S) == []
    assert not world.scaler.backoff.failures


def test_one_that_stays_away_is_cleaned_up_and_replaced() -> None:
    world = World()
    world.run("auto-1")
    world.agents.clear()
    world.look()
    assert world.look(MISSING_S) == [Stop("auto-1"), Start("auto-2")]


def test_a_start_that_comes_to_nothing_is_tried_again_ever_later() -> None:
    world = World()
    world.look(demand=1)
    delays: list[float] = []
    for number in range(12):
        world.act(world.scaler.on_started("auto-1", world.now))
        assert world.look(99.9) == []
        assert world.look(0.1) == [Stop("auto-1")], "after --start-timeout"
        world.act(world.scaler.on_stopped("auto-1", world.now))
        assert "auto-1" not in world.scaler.instances
        assert world.scaler.backoff.failures == number + 1
        delays.append(world.scaler.backoff.next_start - world.now)
        assert world.look(delays[-1] - 0.01) == []
        assert "has not come into its pool" in world.scaler.held
        assert world.scaler.next_time(world.now) is not None
        assert world.look(0.01) == [Start("auto-1")]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_a_driver_that_fails_has_its_rest_stopped() -> None:
    world = World()
    world.look(demand=100)
    for name in ("auto-1", "auto-2", "auto-3"):
        assert world.act(world.scaler.on_start_failed(name, "quota", world.now)) == [Stop(name)]
        world.act(world.scaler.on_stop_failed(name, "there is none", world.now))
    assert world.scaler.instances == {}, "what never came is nobody's concern"
    assert world.look(299) == [Start("auto-1")], "one at a time, until one is there"
    assert world.look(299) == []
    world.starts("auto-1")
    assert world.look() == [Start("auto-2")], "the first is ready"
    assert world.look(STEADY_S) == [Start("auto-3")], "and steady, so nothing is held back any more"
    assert not world.scaler.backoff.failures


def test_a_crash_loop_gets_slower_and_a_steady_agent_ends_it() -> None:
    world = World()
    world.look(demand=1)
    for failures in range(1, 6):
        world.starts("auto-1")
        world.look()
        world.agents.clear()
        world.act(world.scaler.on_ended("auto-1", "was killed by SIGSEGV", world.now + STEADY_S - 1))
        assert world.scaler.backoff.failures == failures
        world.now = world.scaler.backoff.next_start
        assert world.look() == [Start("auto-1")]
    world.starts("auto-1")
    world.look()
    world.look(STEADY_S)
    assert not world.scaler.backoff.failures
    world.agents.clear()
    world.act(world.scaler.on_ended("auto-1", "was killed by SIGKILL", world.now))
    assert world.look() == [Start("auto-1")], "a crash of one that was steady says nothing of the next"


def test_a_refusal_is_not_repeated_soon() -> None:
    world = World()
    world.look(demand=1)
    world.starts("auto-1")
    world.agents.clear()
    world.act(world.scaler.on_ended("auto-1", "exited with code 78", world.now, is_final=True))
    assert world.look(299) == []
    assert world.look(1) == [Start("auto-1")]


def test_a_new_desired_state_is_tried_at_once() -> None:
    world = World()
    world.look(demand=1)
    world.act(world.scaler.on_start_failed("auto-1", "quota", world.now, is_final=True))
    world.act(world.scaler.on_stopped("auto-1", world.now))
    assert world.look(1) == []
    world.version += 1
    assert world.look() == [Start("auto-1")]


def test_stuck_agents_are_not_multiplied() -> None:
    world = World()
    world.look(demand=1)
    world.starts("auto-1", Condition.STUCK, trouble="ModelFileDoesNotExist: nowhere.gguf")
    for _ in range(50):
        assert world.look(400, demand=100) == []
    assert "ModelFileDoesNotExist" in world.scaler.held
    assert world.scaler.backoff.failures == 1, "its trouble is told once"
    world.look(demand=0)
    assert world.look(COOLDOWN_S) == [Drain("id-auto-1")], "nobody needs it"
    world.agents.clear()
    world.look(demand=100)
    assert world.phase("auto-1") is Phase.DRAINING, "one that is stuck is not called back"


def test_a_removed_agent_is_no_failure() -> None:
    world = World()
    world.run("auto-1")
    world.joins("auto-1", Condition.OTHER, is_draining=True)
    assert world.look() == [Start("auto-2")], "an operator has removed it, and there is demand"
    world.act(world.scaler.on_ended("auto-1", "exited with code 0", world.now, was_asked=True))
    assert not world.scaler.backoff.failures


def test_an_agent_that_an_operator_drains_stays_and_serves_nobody() -> None:
    world = World()
    world.run("auto-1")
    world.joins("auto-1", is_draining=True)
    assert world.look() == [Start("auto-2")]
    world.starts("auto-2")
    world.look(demand=0)
    world.look(COOLDOWN_S)
    assert world.phase("auto-1") is Phase.UP
    assert world.phase("auto-2") is Phase.DRAINING


def test_agents_of_an_earlier_autoscaler_are_found() -> None:
    world = World()
    world.joins("auto-2")
    world.joins("auto-7", requests=1)
    assert world.look(demand=1) == []
    assert world.look(COOLDOWN_S) == [Drain("id-auto-2")]
    assert world.look(demand=12) == [Undrain("id-auto-2"), Start("auto-1")], "a name that is free"


def test_a_loading_agent_goes_before_one_that_serves() -> None:
    world = World()
    world.run("auto-1")
    world.look(demand=8)
    world.starts("auto-2", Condition.COMING)
    world.look(demand=1)
    assert world.look(COOLDOWN_S) == [Drain("id-auto-2")]


def test_one_that_is_not_there_yet_does_not_outlive_one_that_serves() -> None:
    world = World()
    world.run("auto-1")
    assert world.look(demand=8) == [Start("auto-2")]
    world.act(world.scaler.on_started("auto-2", world.now))
    world.look(demand=1)
    assert world.look(COOLDOWN_S) == []
    assert world.look(demand=0) == []
    assert world.look(COOLDOWN_S) == [Stop("auto-2"), Drain("id-auto-1")]


def test_a_stop_that_fails_is_tried_again() -> None:
    world = World(ends_with_us=False)
    world.run("auto-1")
    world.look(demand=0)
    world.look(COOLDOWN_S)
    world.drained("auto-1")
    assert world.look() == [Stop("auto-1")]
    world.act(world.scaler.on_stop_failed("auto-1", "exited with code 1", world.now))
    assert world.look(4.9) == []
    assert world.look(0.1) == [Stop("auto-1")]
    world.act(world.scaler.on_stopped("auto-1", world.now))
    assert world.look(STILL_S - 1) == [], "its machine takes a while to go"
    assert world.look(1) == [Stop("auto-1")]
    world.act(world.scaler.on_stopped("auto-1", world.now))
    world.agents.clear()
    world.look()
    assert world.scaler.instances == {}


def test_who_starts_the_autoscaler_again_need_not_wait() -> None:
    world = World()
    world.look(demand=1)
    world.act(world.scaler.on_start_failed("auto-1", "quota", world.now, is_final=True))
    world.look()
    assert world.scaler.held
    world.act(world.scaler.on_stop(world.now))
    assert not world.scaler.backoff.failures
    assert not world.scaler.held


def test_local_agents_end_with_the_autoscaler() -> None:
    world = World()
    world.run("auto-1", "auto-2")
    world.look(demand=12)
    assert world.act(world.scaler.on_stop(world.now)) == [Stop("auto-1"), Stop("auto-2")]
    assert world.look() == []
    assert world.act(world.scaler.on_started("auto-3", world.now)) == [Stop("auto-3")], "it was just being started"
    for name in ("auto-1", "auto-2", "auto-3"):
        assert not world.scaler.is_done
        world.act(world.scaler.on_stopped(name, world.now))
    assert world.scaler.is_done


def test_one_that_has_just_been_stopped_is_not_waited_for() -> None:
    world = World()
    world.run("auto-1", "auto-2")
    world.look(demand=0)
    world.look(COOLDOWN_S)
    for name in ("auto-1", "auto-2"):
        world.drained(name)
    world.look()
    world.act(world.scaler.on_stopped("auto-1", world.now))
    world.act(world.scaler.on_stop_failed("auto-2", "it hangs", world.now))
    assert world.act(world.scaler.on_stop(world.now)) == [Stop("auto-2")]
    world.act(world.scaler.on_stop_failed("auto-2", "it hangs", world.now))
    assert world.scaler.is_done


def test_those_of_a_cloud_outlive_it() -> None:
    world = World(ends_with_us=False)
    world.run("auto-1")
    assert world.act(world.scaler.on_stop(world.now)) == []
    assert world.scaler.is_done


@pytest.mark.parametrize("demand", [0, 1])
def test_when_to_look_again(demand: int) -> None:
    """While nothing is there and nothing is needed, only a request or the poll is a reason to look."""
    world = World()
    world.look()
    assert world.scaler.next_time(world.now) is None
    world.run("auto-1")
    world.look(demand=demand)
    assert world.scaler.next_time(world.now) == world.now + 1, "requests that end are not told of"
