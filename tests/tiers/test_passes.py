"""Passes between agents: what is forged, stale, of another body or used before is refused."""

from __future__ import annotations

import secrets

import pytest

from workers.agent.tiers.passes import GOOD_FOR_S, SCHEME, Passes, Refusal

SECRET = secrets.token_bytes(32)
HERE = "http://10.0.0.1:7"
NOW = 1_700_000_000.7


def test_a_pass_is_good_once_and_for_its_body() -> None:
    issued = Passes(SECRET).issue(HERE, b"body", NOW)
    checking = Passes(SECRET)
    assert checking.check(issued, HERE, b"other", NOW) is Refusal.FORGED
    assert checking.check(issued, "http://10.0.0.2:7", b"body", NOW) is Refusal.FORGED, "another agent's"
    assert checking.check(issued, HERE, b"body", NOW) is None
    assert checking.check(issued, HERE, b"body", NOW) is Refusal.USED


@pytest.mark.parametrize(("away_s", "refusal"), [(GOOD_FOR_S - 1, None), (-GOOD_FOR_S + 1, None), (GOOD_FOR_S + 1, 1)])
def test_it_is_good_for_a_minute_around_its_time(away_s: float, refusal: int | None) -> None:
    issued = Passes(SECRET).issue(HERE, b"", NOW)
    assert Passes(SECRET).check(issued, HERE, b"", NOW + away_s) is (Refusal.STALE if refusal else None)


def test_what_is_no_pass_of_this_fleet_is_forged() -> None:
    checking = Passes(SECRET)
    good = checking.issue(HERE, b"", NOW)
    time, nonce, signature = good.removeprefix(f"{SCHEME} ").split(".")
    for header in (
        "",
        "Bearer abc",
        good + "0",
        Passes(secrets.token_bytes(32)).issue(HERE, b"", NOW),
        f"{SCHEME} {int(time) + 1}.{nonce}.{signature}",
        f"{SCHEME} {time}.{'0' * 32}.{signature}",
        f"{SCHEME} {time}.{nonce}.{'0' * 64}",
        f"{SCHEME} {time}.{nonce}.",
    ):
        assert checking.check(header, HERE, b"", NOW) is Refusal.FORGED, header
    assert checking.check(good, HERE, b"", NOW) is None


def test_those_that_were_used_are_forgotten_when_they_are_stale() -> None:
    checking = Passes(SECRET)
    for number in range(100):
        at = NOW + number * 10
        assert checking.check(checking.issue(HERE, b"", at), HERE, b"", at) is None
    assert len(checking._used) <= 2 * GOOD_FOR_S / 10 + 1  # pyright: ignore[reportPrivateUsage]
