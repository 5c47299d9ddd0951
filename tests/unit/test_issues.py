"""What an issue tells its operator to do can be done."""

from __future__ import annotations

import re

import pytest

from paddler.issues import IssueKind, all_kinds, issue_of
from workers.agent.main import command


@pytest.mark.parametrize("kind", all_kinds())
def test_flags_of_a_remedy_are_those_of_an_agent(kind: IssueKind) -> None:
    known = {name for option in command.params for name in option.opts}
    issue = issue_of(kind, "", "", waits=True)
    assert set(re.findall(r"--[a-z-]+", issue.remedy + issue.action)) <= known
