"""Trying a chat template that nobody uses: what it renders, or what is wrong with it and where."""

from __future__ import annotations

import pytest

from paddler.clock import SystemClock
from paddler.engine import EngineInfo
from paddler.wire.agent import Generate, Message, Tool, TryTemplate
from paddler.wire.trials import TemplateTrial
from workers.agent import template_trials
from workers.agent.template_trials import ARCHITECTURE, MAX_SHOWN, OWN, try_template

TALK = Generate(messages=(Message("system", "Be brief."), Message("user", "Who are you?")))
INFO = EngineInfo(
    model="tiny",
    slots_total=1,
    context_size=64,
    metadata={ARCHITECTURE: "llama", OWN: "own: {{ messages[-1].content }}"},
    bos="<s>",
    eos="</s>",
)
ENDLESS = (
    "{% set all = 'x' * 100000 %}\n{% for a in all %}\n{% for b in all %}\n{% set c = 1 %}{% endfor %}{% endfor %}"
)


def tried(template: str | None, *, override: str | None = None, asked: Generate = TALK) -> TemplateTrial:
    return try_template(TryTemplate("q", asked, template), INFO, override, SystemClock())


def test_it_is_rendered_with_the_tokens_of_the_model() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    assert tried(source) == TemplateTrial(prompt="<s>system: Be brief.</s>user: Who are you?</s>")


def test_without_one_it_is_what_the_agent_uses() -> None:
    assert tried(None) == TemplateTrial(prompt="own: Who are you?", source="model")
    assert tried(None, override="theirs") == TemplateTrial(prompt="theirs", source="override")


def test_tools_are_told_of_as_in_a_request() -> None:
    tools = (Tool("look", "{}", "Looks."),)
    told = tried(
        "{% for m in messages %}{{ m.content }}{% endfor %}", asked=Generate(messages=TALK.messages, tools=tools)
    )
    assert "look" in (told.prompt or "")


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [
        ("a\n{% if %}", 2, "does not compile: line 2: Expected an expression"),
        ("{% endif %}", 1, "unknown tag 'endif'"),
        ("a\n\n{{ messages[0].x.y }}", 3, "UndefinedError: 'dict object' has no attribute 'x'"),
        (
            "a\n{% for m in messages %}\n{{ raise_exception('only once') }}{% endfor %}",
            3,
            "refuses these messages: only once",
        ),
        ("a\n{{ 1 // 0 }}", 2, "ZeroDivisionError"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(template: str, line: int, words: str) -> None:
    told = tried(template)
    assert (told.prompt, told.line) == (None, line)
    assert words in (told.error or "")


def test_a_template_that_loops_for_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_trials, "LIMIT_S", 0.05)
    told = tried(ENDLESS)
    assert told.line in (2, 3, 4)
    assert "is not done after 0.05 s" in (told.error or "")
    assert tried("fine").prompt == "fine"


def test_a_long_prompt_is_cut() -> None:
    told = tried("{{ 'x' * 200000 }}")
    assert (len(told.prompt or ""), told.is_cut) == (MAX_SHOWN, True)


def test_an_agent_without_a_template_says_so() -> None:
    silent = EngineInfo(model="base", slots_total=1, context_size=64, metadata={ARCHITECTURE: "llama"})
    told = try_template(TryTemplate("q", TALK), silent, None, SystemClock())
    assert told.error == "base has no chat template of its own"
    other = EngineInfo(model="far", slots_total=1, context_size=64)
    told = try_template(TryTemplate("q", TALK, "{{ messages }}"), other, None, SystemClock())
    assert "another server" in (told.error or "")
