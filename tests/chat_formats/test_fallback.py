"""A conversation with calls for a template that knows none of them."""

from __future__ import annotations

from datetime import UTC, datetime

from paddler.chat_formats.fallback import rewritten
from paddler.wire.agent import Generate, Message, Tool, ToolCall
from workers.agent.templates import ChatTemplate

ALTERNATING = """{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('turns must alternate') }}{%- endif %}
{{- '<' + message.role + '>' + message.content }}
{%- endfor %}"""
CALL = Message("assistant", "", tool_calls=(ToolCall("c1", "look", '{"at": "x"}'), ToolCall("c2", "go", "{}")))
TALK = (
    Message("user", "Look."),
    CALL,
    Message("tool", "a fox", tool_call_id="c1"),
    Message("tool", "gone", tool_call_id="c2"),
    Message("user", "And now?", name="me"),
)
ONE_TURN = "Result of look:\na fox\n\nResult of go:\ngone\n\nAnd now?"


def test_results_and_what_the_user_says_then_are_one_turn() -> None:
    turns = rewritten(TALK, "", has_system=True)
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert turns[-1] == Message("user", ONE_TURN, name="me")
    late = (*TALK[:3], Message("user", "Wait."), TALK[3], TALK[4])
    assert [turn.role for turn in rewritten(late, "", has_system=True)] == ["user", "assistant", "user"]
    plain = (Message("user", "a"), Message("user", "b"))
    assert rewritten(plain, "", has_system=True) == plain, "what the client has sent so is the template's to judge"


def test_a_template_that_insists_on_turns_takes_it() -> None:
    template = ChatTemplate(ALTERNATING, bos="", eos="", today=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert not template.kind.is_native
    tools = (Tool("look", "{}"), Tool("go", "{}"))
    text = template.render_chat(Generate(messages=TALK, tools=tools), {})
    assert text.endswith(f"<user>{ONE_TURN}")
