"""What conversations that begin alike have in common, and which of them do."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from paddler.wire.agent import Generate, Message, Tool
from workers.agent.pin_probes import begins_with, common, probes

SYSTEM, USER = Message("system", "Be brief."), Message("user", "Here is a book.")
TOOL = Tool("look", "{}")


def test_what_follows_is_what_a_client_could_send() -> None:
    for one in probes(Generate(messages=(SYSTEM,), tools=(TOOL,))):
        assert one.messages is not None
        assert [message.role for message in one.messages] == ["system", "user"]
        assert one.tools == (TOOL,)
    as_it_is, goes_on = probes(Generate(messages=(SYSTEM, USER)))
    assert as_it_is.messages == (SYSTEM, USER)
    assert [message.role for message in goes_on.messages or ()] == ["system", "user", "assistant", "user"]
    prompts = [one.prompt or "" for one in probes(Generate(prompt="Once"))]
    assert len({prompt[4] for prompt in prompts}) == len(prompts) == 3


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([(1, 2, 3), (1, 2, 4), (1, 2, 3, 5)], (1, 2)),
        ([(1, 2), (1, 2, 3)], (1, 2)),
        ([(1,), (2,)], ()),
        ([(), (1,)], ()),
    ],
)
def test_common(prompts: list[tuple[int, ...]], expected: tuple[int, ...]) -> None:
    assert common(prompts) == expected


def test_who_begins_so() -> None:
    pinned = Generate(messages=(SYSTEM,), tools=(TOOL,))
    asked = Generate(messages=(SYSTEM, USER), tools=(TOOL,), max_tokens=5)
    assert begins_with(asked, pinned)
    assert not begins_with(replace(asked, tools=()), pinned)
    assert not begins_with(replace(asked, tool_choice="none"), pinned), "then the model does not hear of tools"
    assert not begins_with(replace(asked, messages=(USER, SYSTEM)), pinned)
    assert not begins_with(Generate(prompt="Be brief."), pinned)
    assert begins_with(Generate(prompt="Once upon a time"), Generate(prompt="Once"))
    assert not begins_with(Generate(prompt_ids=(1,)), Generate(prompt="Once"))
