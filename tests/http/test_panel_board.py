"""What viewers of the panel are told: never a backlog, always the difference to what they know."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.panel.board import MAX_GONE, Board

THINGS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3))


def told(board: Board, version: int) -> dict[str, Any] | None:
    change = board.since(version)
    return None if change is None else json.loads(change)


def applied(held: dict[str, int], change: dict[str, Any] | None) -> dict[str, int]:
    """As the page does it."""
    if change is None:
        return held
    kept = (
        {} if change.get("reset") else {key: value for key, value in held.items() if key not in change.get("gone", [])}
    )
    return kept | change.get("set", {})


@given(st.lists(st.tuples(THINGS, st.booleans()), max_size=12))
def test_whoever_reads_seldom_has_what_there_is(steps: list[tuple[dict[str, int], bool]]) -> None:
    board, version, held = Board(), 0, {}
    for things, reads in steps:
        board.update({key: str(value).encode() for key, value in things.items()})
        if reads:
            held = applied(held, told(board, version))
            version = board.version
            assert held == things


def test_nothing_is_told_where_nothing_changed() -> None:
    board = Board()
    assert board.update({"a": b"1"})
    version = board.version
    assert not board.update({"a": b"1"})
    assert board.since(version) is None
    assert told(board, 0) == {"reset": True, "set": {"a": 1}}


def test_an_empty_fleet_is_told_once() -> None:
    board = Board()
    assert board.update({})
    assert told(board, 0) == {"reset": True}
    assert not board.update({})


def test_who_is_behind_more_than_is_remembered_begins_anew() -> None:
    board = Board()
    board.update({str(number): b"1" for number in range(MAX_GONE + 1)})
    version = board.version
    board.update({"new": b"2"})
    assert told(board, version) == {"reset": True, "set": {"new": 2}}
