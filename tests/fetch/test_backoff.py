"""When to try again."""

from __future__ import annotations

import pytest

from paddler.remedies import Course
from workers.agent.fetch.backoff import LOOK_S, MOST_ASKED_S, MOST_S, SELDOM_MOST_S, retry_in_s


def test_a_delay_doubles_up_to_five_minutes() -> None:
    assert [retry_in_s(Course.RETRIES, attempt, 1.0) for attempt in (1, 2, 3, 9, 10, 10_000)] == [
        *(1, 2, 4),
        *(256, MOST_S, MOST_S),
    ]
    assert retry_in_s(Course.RETRIES_SELDOM, 1, 1.0) == 60
    assert retry_in_s(Course.RETRIES_SELDOM, 99, 1.0) == SELDOM_MOST_S


@pytest.mark.parametrize("course", [Course.RETRIES, Course.RETRIES_SELDOM, Course.RETRIES_LITTLE])
def test_half_of_a_delay_is_random(course: Course) -> None:
    least, most = retry_in_s(course, 2, 0.0), retry_in_s(course, 2, 1.0)
    assert least is not None
    assert most == 2 * least


@pytest.mark.parametrize("course", [Course.WAITS_FOR_OTHER, Course.WATCHES_FILE, Course.WATCHES_FILE_AND_MEMORY])
def test_what_costs_nothing_is_looked_at_often(course: Course) -> None:
    assert retry_in_s(course, 1, 0.5) == retry_in_s(course, 1000, 0.5) == LOOK_S


def test_what_is_not_tried_again() -> None:
    assert retry_in_s(Course.GIVES_UP, 1, 0.5) is None
    assert retry_in_s(Course.GIVES_UP, 1, 0.5, asked_s=1.0) is None
    assert [retry_in_s(Course.RETRIES_LITTLE, attempt, 0.5) is None for attempt in (1, 2, 3)] == [False, False, True]


def test_a_server_says_when() -> None:
    assert retry_in_s(Course.RETRIES, 1, 0.0, asked_s=30.0) == 30
    assert retry_in_s(Course.RETRIES, 1, 1.0, asked_s=30.0) == pytest.approx(33)
    assert retry_in_s(Course.RETRIES, 9, 0.0, asked_s=1.0) == 128
    assert retry_in_s(Course.RETRIES, 1, 0.0, asked_s=1e9) == MOST_ASKED_S
