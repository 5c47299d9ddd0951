"""The supervisor decides without processes, clocks or sleeps: events with a time go in, effects come out."""

from __future__ import annotations

import signal

import pytest

from paddler.up.supervisor import (
    FIRST_DELAY_S,
    MAX_DELAY_S,
    STAGE_S,
    STEADY_S,
    Effect,
    Say,
    Signal,
    Spec,
    Start,
    Supervisor,
    describe,
)

TERM, KILL = signal.SIGTERM, signal.SIGKILL


def fleet() -> Supervisor:
    names = [("valkey", None, 2), ("balancer", "valkey", 0), ("agent-1", "valkey", 1), ("worker", "valkey", 1)]
    return Supervisor([Spec(name=n, command=("x",), awaits=a, stop_stage=stage) for n, a, stage in names])


def running_fleet() -> Supervisor:
    supervisor = fleet()
    supervisor.on_begin(0.0)
    supervisor.on_ready("valkey", 0.1)
    return supervisor


def acts(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if not isinstance(effect, Say)]


def said(effects: list[Effect]) -> str:
    return "\n".join(effect.text for effect in effects if isinstance(effect, Say))


def test_children_that_await_another_start_once_it_is_ready() -> None:
    supervisor = fleet()
    assert supervisor.on_begin(0.0) == [Start("valkey")]
    assert supervisor.on_ready("valkey", 1.0) == [Start("balancer"), Start("agent-1"), Start("worker")]
    assert supervisor.on_ready("valkey", 2.0) == []


def test_a_crashed_child_starts_again_after_a_delay_and_it_is_said() -> None:
    supervisor = running_fleet()
    effects = supervisor.on_exit("balancer", -9, 1.0)
    assert acts(effects) == []
    assert said(effects) == f"balancer was killed by SIGKILL; starting it again in {FIRST_DELAY_S:g} s"
    assert supervisor.next_time() == 1.0 + FIRST_DELAY_S
    assert supervisor.on_time(1.0) == []
    assert supervisor.on_time(1.0 + FIRST_DELAY_S) == [Start("balancer")]
    assert supervisor.next_time() is None


def test_the_delay_doubles_up_to_a_limit_and_is_short_again_after_a_steady_time() -> None:
    supervisor, now, delays = running_fleet(), 1.0, list[float]()
    for _ in range(9):
        supervisor.on_exit("balancer", 1, now)
        start = supervisor.next_time()
        assert start is not None
        delays.append(start - now)
        now = start
        supervisor.on_time(now)
    assert delays == [min(FIRST_DELAY_S * 2**n, MAX_DELAY_S) for n in range(9)]
    supervisor.on_exit("balancer", 1, now + STEADY_S)
    assert supervisor.next_time() == now + STEADY_S + FIRST_DELAY_S


def test_a_child_that_crashes_does_not_delay_another() -> None:
    supervisor = running_fleet()
    for now in (1.0, 2.0, 3.0):
        supervisor.on_exit("balancer", 1, now)
        supervisor.on_time(now + MAX_DELAY_S)
    supervisor.on_exit("worker", 1, 100.0)
    assert supervisor.next_time() == 100.0 + FIRST_DELAY_S


@pytest.mark.parametrize("code", [2, 78])
def test_a_child_that_refuses_its_settings_twice_stops_everything(code: int) -> None:
    supervisor = running_fleet()
    supervisor.on_exit("agent-1", code, 1.0)
    supervisor.on_time(2.0)
    effects = supervisor.on_exit("agent-1", code, 3.0, ("Error: no such model",))
    assert "no such model" in said(effects)
    assert supervisor.failure is not None
    assert supervisor.failure.startswith(f"agent-1 exited with code {code} again; stopping.")
    assert acts(effects) == [Signal("balancer", TERM)]
    assert supervisor.is_stopping


def test_a_refusal_between_other_ends_is_forgotten() -> None:
    supervisor = running_fleet()
    for now, code in enumerate([2, 1, 2, 0, 2]):
        supervisor.on_exit("agent-1", code, float(now))
        supervisor.on_time(now + 0.9)
    assert supervisor.failure is None


def test_a_server_that_never_became_ready_is_not_tried_for_ever() -> None:
    supervisor = fleet()
    supervisor.on_begin(0.0)
    supervisor.on_exit("valkey", 1, 1.0)
    assert supervisor.on_time(2.0) == [Start("valkey")]
    supervisor.on_exit("valkey", 1, 3.0, ("Bad file format reading the append only file",))
    assert "Bad file format" in (supervisor.failure or "")
    assert supervisor.is_done


def test_a_server_that_was_ready_once_is_tried_again_and_again() -> None:
    supervisor = running_fleet()
    for now in range(1, 200, 20):
        assert said(supervisor.on_exit("valkey", -9, float(now)))
        assert supervisor.on_time(now + MAX_DELAY_S) == [Start("valkey")]
    assert supervisor.failure is None


def test_stopping_goes_stage_by_stage_the_server_last() -> None:
    supervisor = running_fleet()
    assert supervisor.on_stop(10.0) == [Signal("balancer", TERM)]
    assert supervisor.on_exit("balancer", 0, 10.1) == [Signal("agent-1", TERM), Signal("worker", TERM)]
    assert supervisor.on_exit("worker", 0, 10.2) == []
    assert supervisor.on_exit("agent-1", 0, 10.3) == [Signal("valkey", TERM)]
    assert not supervisor.is_done
    assert supervisor.on_exit("valkey", 0, 10.4) == []
    assert supervisor.is_done
    assert supervisor.failure is None
    assert supervisor.next_time() is None


def test_what_does_not_stop_is_killed_and_all_is_over_within_5_s() -> None:
    supervisor, now = running_fleet(), 10.0
    supervisor.on_stop(now)
    killed = list[Effect]()
    while not supervisor.is_done:
        due = supervisor.next_time()
        assert due is not None
        now = due
        for effect in acts(supervisor.on_time(now)):
            if effect == Signal(effect.name, KILL):  # pyright: ignore[reportAttributeAccessIssue]  # acts have names
                killed.append(effect)
                supervisor.on_exit(effect.name, -9, now)  # pyright: ignore[reportAttributeAccessIssue]
    assert killed == [Signal(name, KILL) for name in ("balancer", "agent-1", "worker", "valkey")]
    assert now - 10.0 == pytest.approx(3 * STAGE_S)
    assert now - 10.0 < 5.0


def test_a_killed_child_that_lingers_does_not_hold_up_the_next_stage() -> None:
    supervisor = running_fleet()
    supervisor.on_stop(0.0)
    effects = supervisor.on_time(STAGE_S)
    assert acts(effects) == [Signal("balancer", KILL), Signal("agent-1", TERM), Signal("worker", TERM)]
    supervisor.on_exit("agent-1", 0, 2.0)
    assert supervisor.on_exit("worker", 0, 2.0) == [Signal("valkey", TERM)]
    assert supervisor.on_exit("valkey", 0, 2.1) == []
    assert not supervisor.is_done
    effects = supervisor.on_time(2.1 + STAGE_S)
    assert "balancer could not be killed" in said(effects)
    assert supervisor.is_done


def test_asked_to_stop_again_it_kills_at_once() -> None:
    supervisor = running_fleet()
    supervisor.on_stop(0.0)
    everyone = [Signal(name, KILL) for name in ("valkey", "balancer", "agent-1", "worker")]
    assert supervisor.on_stop(0.1) == everyone
    for name in ("valkey", "balancer", "agent-1", "worker"):
        supervisor.on_exit(name, -9, 0.2)
    assert supervisor.is_done


def test_a_child_that_waits_for_its_restart_does_not_start_while_stopping() -> None:
    supervisor = running_fleet()
    supervisor.on_exit("worker", 1, 1.0)
    supervisor.on_stop(1.1)
    assert acts(supervisor.on_time(1.0 + FIRST_DELAY_S)) == []
    assert "worker" not in supervisor.running


def test_asked_to_stop_before_the_server_is_ready() -> None:
    supervisor = fleet()
    supervisor.on_begin(0.0)
    assert supervisor.on_stop(0.1) == [Signal("valkey", TERM)]
    assert supervisor.on_ready("valkey", 0.2) == []
    supervisor.on_exit("valkey", 0, 0.3)
    assert supervisor.is_done


def test_how_an_end_is_told() -> None:
    assert describe(3) == "exited with code 3"
    assert describe(-11) == "was killed by SIGSEGV"
    assert describe(-200) == "was killed by signal 200"


def test_an_agent_that_was_told_to_end_is_not_started_again() -> None:
    """An operator has removed it: code 0. Any other end of it is a crash, and code 0 of any other child is one."""
    specs = [Spec(name="balancer", command=("b",)), Spec(name="agent-1", command=("a",), stop_stage=1, may_end=True)]
    supervisor = Supervisor(specs)
    supervisor.on_begin(0.0)
    assert "not started again" in said(supervisor.on_exit("agent-1", 0, 1.0))
    assert supervisor.next_time() is None
    assert supervisor.running == ["balancer"]
    supervisor.on_exit("balancer", 0, 2.0)
    assert supervisor.next_time() == 2.0 + FIRST_DELAY_S
    assert not supervisor.is_stopping
