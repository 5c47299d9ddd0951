"""What an issue tells its operator to do can be done, and what it says of Paddler is what Paddler does."""

from __future__ import annotations

import re

import pytest
import rich_click as click

from paddler import remedies
from paddler.issues import IssueKind, all_kinds, course_of, decode_issues, encode_issues, issue_of
from paddler.remedies import Course
from workers.agent.fetch.flags import fetch_options
from workers.agent.main import command


@pytest.mark.parametrize("kind", all_kinds())
def test_flags_of_a_remedy_are_those_of_an_agent(kind: IssueKind) -> None:
    known = {name for one in (command, click.command()(fetch_options(lambda: None))) for name in _flags(one)}
    issue = issue_of(kind, "", "", waits=True)
    assert set(re.findall(r"--[a-z-]+", issue.remedy + issue.action)) <= known


@pytest.mark.parametrize("kind", all_kinds())
def test_an_issue_says_what_is_done_about_it(kind: IssueKind) -> None:
    waiting = issue_of(kind, "why", "m", waits=True)
    assert waiting.remedy
    assert waiting.action == (remedies.ENDS if kind == "SettingsInvalid" else remedies.ACTIONS[course_of(kind)])
    assert issue_of(kind, "why", "m", waits=False).action.startswith(remedies.ENDS)
    assert issue_of(kind, "", "", waits=True, course=Course.RETRIES).action == remedies.ACTIONS[Course.RETRIES]
    assert decode_issues(encode_issues((waiting,))) == (waiting,)


def test_words_are_there_for_what_there_is() -> None:
    assert set(remedies.COURSES) == set(remedies.REMEDIES) == set(all_kinds())
    assert set(remedies.ACTIONS) == set(Course)


def _flags(one: click.Command) -> list[str]:
    return [name for option in one.params for name in option.opts]
