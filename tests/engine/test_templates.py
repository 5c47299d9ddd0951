"""Chat templates: what Hugging Face's renderer offers them, and that neither template nor client gets further."""

from __future__ import annotations

from datetime import datetime

import pytest

from paddler.errors import InvalidField
from paddler.wire.agent import Message
from workers.agent.templates import MAX_PROMPT_CHARS, ChatTemplate, TemplateError

TALK = (Message("system", "Be brief."), Message("user", 'Say "<hi>" & 🙂', name="eva"))


def render(source: str, messages: tuple[Message, ...] = TALK, *, add_generation_prompt: bool = True) -> str:
    template = ChatTemplate(source, bos="<s>", eos="</s>", today=lambda: datetime(2026, 2, 3, 4, 5))
    return template.render(messages, add_generation_prompt=add_generation_prompt)


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


def test_absent_tools_are_none_not_undefined() -> None:
    assert render("{{ tools is none }}{{ documents is none }}") == "TrueTrue"


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
    with pytest.raises(TemplateError, match="cannot be compiled"):
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
