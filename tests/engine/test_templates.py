"""Chat templates: what Hugging Face's renderer offers them, and that neither template nor client gets further."""

from __future__ import annotations

from datetime import datetime

import pytest

from paddler.errors import InvalidField
from paddler.wire.agent import Generate, Message, Tool, ToolCall
from workers.agent.templates import MAX_PROMPT_CHARS, ChatTemplate, TemplateError

TALK = (Message("system", "Be brief."), Message("user", 'Say "<hi>" & 🙂', name="eva"))


def render(source: str, messages: tuple[Message, ...] = TALK, *, add_generation_prompt: bool = True) -> str:
    return compiled(source).render(messages, add_generation_prompt=add_generation_prompt)


def compiled(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", today=lambda: datetime(2026, 2, 3, 4, 5))


def test_messages_and_generation_prompt() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    expected = '<s><system>Be brief.</s><user>Say "<hi>" & 🙂</s>'
    assert render(source) == f"{expected}<assistant>"
    assert render(source, add_generation_prompt=False) == expected


def test_block_lines_leave_no_trace() -> None:
    assert render("{% for m in messages %}\n    {% if true %}\n{{ m.role }}.\n    {% endif %}\n{% endfor %}") == (
        "system.\nuser.\n"
    )


def test_loop_controls() -> None:
    assert render("{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}{{ m.role }}{% endfor %}") == (
        "system"
    )


def test_tojson_is_pythons_not_htmls() -> None:
    assert render("{{ messages[1].content | tojson }}") == '"Say \\"<hi>\\" & 🙂"'
    assert render("{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}") == '{\n "b": 1,\n "a": [\n  2\n ]\n}'


def test_the_date() -> None:
    assert render("{{ strftime_now('%d %b %Y') }}") == "03 Feb 2026"
    assert render("a{{ nl_token }}b") == "a\nb"


def test_absent_tools_are_none_not_undefined() -> None:
    assert render("{{ tools is none }}{{ documents is none }}") == "TrueTrue"


def test_variables_of_a_request_and_none_of_ours() -> None:
    template = compiled("{{ depth }} {{ add_generation_prompt }}")
    assert template.render(TALK, add_generation_prompt=True, variables={"depth": [1], "messages": 3}) == "[1] True"
    assert {"depth", "add_generation_prompt"} <= template.variables


CALLS = (
    '{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ ARGS }}}{% endfor %}'
)
TALK_OF_TOOLS = (
    Message("user", "Look."),
    Message("assistant", "", tool_calls=(ToolCall("c1", "look", '{"at": "x"}'),)),
    Message("tool", "A fox.", tool_call_id="c1"),
)


@pytest.mark.parametrize(
    ("arguments", "is_native"),
    [
        ("c.function.arguments | tojson", True),
        ("c.function.arguments + ''", True),
        ("c.function.arguments | items | list", False),
        ("{}", False),
    ],
)
def test_calls_are_given_as_a_template_wants_them_or_in_our_words(arguments: str, is_native: bool) -> None:
    """An object or text, whichever comes out as the model will be read; where neither does, as to a template without
    tools."""
    source = (
        "{{ tools is none }}{% for m in messages %}[{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}]{{ m.content }}"
        + CALLS.replace("ARGS", arguments)
        + "{% endfor %}"
    )
    template = compiled(source)
    assert template.kind.is_native == is_native
    tools = (Tool("look", '{"type": "object"}'),)
    text = template.render_chat(Generate(messages=TALK_OF_TOOLS, tools=tools), {})
    call = '<tool_call>{"name": "look", "arguments": {"at": "x"}}'
    if is_native:
        assert text == f"False[user]Look.[assistant]{call}[tool look]A fox."
    else:
        assert text.startswith("True[system]You have tools.")
        assert text.endswith(
            '[user]Look.[assistant]<tool_call>\n{"name": "look", "arguments": {"at": "x"}}\n</tool_call>'
            "[user]Result of look:\nA fox."
        )


def test_what_a_model_is_told_of_tools_comes_where_its_template_has_room() -> None:
    tools = (Tool("look", '{"type": "object"}', "Looks."),)
    turns = (Message("user", "Look."), Message("assistant", "No."), Message("user", "Do."))
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    payload = Generate(messages=turns, tools=tools)
    told = compiled(source).render_chat(payload, {})
    assert told.startswith("[system]You have tools.")
    assert told.endswith("[user]Look.[assistant]No.[user]Do.")
    own = (Message("system", "Be brief."), *turns)
    assert (
        compiled(source)
        .render_chat(Generate(messages=own, tools=tools), {})
        .startswith("[system]Be brief.\n\nYou have tools.")
    )
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}" + source
    told = compiled(refusing).render_chat(payload, {})
    assert told.startswith("[user]You have tools.")
    assert told.endswith("\n\nLook.[assistant]No.[user]Do.")
    assert "tools" not in compiled(source).render_chat(Generate(messages=turns, tools=tools, tool_choice="none"), {})


def test_names_are_there_when_given() -> None:
    assert render("{{ messages[0].name is defined }} {{ messages[1].name }}") == "False eva"


def test_generation_marks_are_only_their_body() -> None:
    assert render("a{% generation %}b{{ messages[0].role }}{% endgeneration %}c") == "absystemc"


def test_namespaces_and_string_methods() -> None:
    source = "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    assert render(source + "{{ messages[0].content.strip('.').split(' ')[-1].startswith('b') }}") == "2True"


def test_a_refusal_of_the_template_is_the_clients_error() -> None:
    with pytest.raises(InvalidField, match="refuses these messages: roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[9].content }}",
        "{{ messages + 1 }}",
        "{{ 1 / 0 }}",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ strftime_now.__self__ }}{{ strftime_now.__globals__['os'] }}",
        "{{ 'a' * 100000000000 }}",
        "{{ [0] * 100000000000 }}",
        "{{ 9 ** 99999999 }}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    ],
)
def test_what_fails_or_goes_too_far_is_an_invalid_field(source: str) -> None:
    with pytest.raises(InvalidField, match="chat template fails"):
        render(source)


def test_the_length_of_a_prompt_is_bounded() -> None:
    with pytest.raises(InvalidField, match="longer than"):
        render("{% for m in messages %}{{ m.content }}{% endfor %}", (Message("user", "a" * MAX_PROMPT_CHARS),) * 2)


@pytest.mark.parametrize("source", ["{% if %}", "{% nonsense %}", "{{ x | nonsense }}", "{% generation %}"])
def test_a_broken_template_is_a_template_error(source: str) -> None:
    with pytest.raises(TemplateError, match="does not compile: line "):
        render(source)


def test_a_template_that_takes_parts_alone_gets_parts() -> None:
    """As those of models for images often do; a text they would leave out without a word."""
    source = (
        "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    assert render(source) == '<system>Be brief.<user>Say "<hi>" & 🙂'


def test_a_template_that_takes_both_gets_text() -> None:
    source = "{% for m in messages %}{% if m.content is string %}s{{ m.content }}{% else %}p{% endif %}{% endfor %}"
    assert render(source) == 'sBe brief.sSay "<hi>" & 🙂'
