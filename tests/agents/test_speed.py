"""What an agent tells of its speed, from the times it is given."""

from __future__ import annotations

from paddler.wire.balancer import Usage
from workers.agent.speed import Speed


def test_prefill_and_rate_of_one_request() -> None:
    speed = Speed()
    speed.started("a", 0.0)
    speed.progressed("a", 2.0)
    speed.ended("a", Usage(prompt_tokens=1100, completion_tokens=100, cached_tokens=100), 4.0)
    assert speed.snapshot() == {"prefill": 500.0, "rate": 275.0}


def test_what_a_cache_saved_does_not_count() -> None:
    speed = Speed()
    speed.started("a", 0.0)
    speed.progressed("a", 0.01)
    speed.ended("a", Usage(prompt_tokens=1000, completion_tokens=20, cached_tokens=1000), 1.0)
    assert speed.prefill is None


def test_a_job_that_goes_on_elsewhere_tells_nothing() -> None:
    speed = Speed()
    speed.started("gone", 0.0)
    speed.forgot("gone")
    speed.started("a", 100.0)
    speed.progressed("a", 101.0)
    speed.ended("a", Usage(prompt_tokens=100, completion_tokens=100), 102.0)
    assert speed.snapshot() == {"prefill": 100.0, "rate": 100.0}, "the idle time before does not count"
