"""Which outputs the grammar of each format lets through; whatever it does, the reader reads as meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddler.chat_formats.grammars import OutputGrammar, output_grammar
from paddler.chat_formats.reading import read_all
from paddler.errors import EngineFailed
from paddler.wire.agent import Generate, Message, Tool
from paddler.wire.balancer import TextFormat
from workers.agent.grammar import Constraint
from workers.agent.llama import Model

NUMBER = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = tuple(
    Tool(name, json.dumps(schema)) for name, schema in {"get": NUMBER, "get_all": EMPTY, "go": NUMBER}.items()
)
ONE = '"name": "get", "arguments": {"n": 1}'
TWO = '"name":"get_all","arguments":{}'
HERMES, LLAMA3 = TextFormat("hermes"), TextFormat("llama3")
MISTRAL, ARGS = TextFormat("mistral"), TextFormat("mistral-args")
THINKS, OPENED = TextFormat("hermes", "think"), TextFormat("hermes", "think", True)
PLAIN_CALL = f"<tool_call>\n{{{ONE}}}\n</tool_call>"


def grammar_of(format: TextFormat, **fields: Any) -> OutputGrammar:
    fields = {"messages": (Message("user", "x"),), "tools": TOOLS} | fields
    grammar = output_grammar(Generate(**fields), format)
    assert grammar is not None
    return grammar


def matches(model: Model, grammar: OutputGrammar, text: str) -> bool:
    constraint = Constraint(grammar.gbnf, model, grammar.root)
    try:
        constraint.accept(model.tokenize(text).tolist())
    except EngineFailed:
        return False
    is_complete = constraint.allows(model.eos)
    constraint.close()
    return is_complete


CALLS: list[tuple[TextFormat, list[str], list[str], list[str]]] = [
    (
        HERMES,
        [PLAIN_CALL, f"<tool_call>{{{TWO}}}</tool_call>"],
        [PLAIN_CALL * 2, f"{PLAIN_CALL}\n<tool_call>{{{TWO}}}</tool_call>"],
        [f"<tool_call>{{{ONE}}}", f"<tool_call>{{{ONE.replace('1', 'true')}}}</tool_call>", f"{PLAIN_CALL}!",
         '<tool_call>{"name": "ge", "arguments": {"n": 1}}</tool_call>', "<tool_call>go</tool_call>",
         '<tool_call>{"arguments": {"n": 1}, "name": "get"}</tool_call>'],
    ),
    (
        LLAMA3,
        ['{"name": "get", "parameters": {"n": 1}}', '<|python_tag|>{"name":"get_all","parameters":{}}'],
        [],
        [f"{{{ONE}}}", '{"name": "put", "parameters": {}}', '{"name": "get", "parameters": {"n": 1}}; and'],
    ),
    (
        MISTRAL,
        [f"[TOOL_CALLS][{{{ONE}}}]", f"[TOOL_CALLS] [ {{{TWO}}}]"],
        [f"[TOOL_CALLS][{{{ONE}}}, {{{TWO}}}]"],
        [f"[TOOL_CALLS]{{{ONE}}}", f"[TOOL_CALLS][{{{ONE}}}", "[TOOL_CALLS][]", f"[TOOL_CALLS][{{{ONE}}},]"],
    ),
    (
        ARGS,
        ['[TOOL_CALLS]get[ARGS]{"n": 1}', "[TOOL_CALLS]get_all[CALL_ID]abc123def[ARGS]{}"],
        ['[TOOL_CALLS]get[ARGS]{"n": 1}[TOOL_CALLS]get_all[ARGS]{}'],
        ["[TOOL_CALLS]get[ARGS]{}", "[TOOL_CALLS]put[ARGS]{}", "[TOOL_CALLS]get_all[CALL_ID]abc[ARGS]{}"],
    ),
]  # fmt: skip
TEXTS = ["", "plain", "a < b <tool [TOOL [[TOOL_CALL <<|python ☃", '["name"]', "{}", '{"nam": 1}', '{ "na']


@pytest.mark.parametrize(("format", "single", "several", "bad"), CALLS, ids=lambda one: getattr(one, "calls", ""))
def test_calls(model: Model, format: TextFormat, single: list[str], several: list[str], bad: list[str]) -> None:
    required = grammar_of(format, tool_choice="required")
    auto = grammar_of(format)
    alone = grammar_of(format, parallel_tool_calls=False)
    for text in single:
        assert all(matches(model, grammar, text) for grammar in (required, auto, alone)), text
        assert len(read_all(format, text).calls) == 1
    for text in several:
        assert matches(model, required, text), text
        assert matches(model, auto, text), text
        assert not matches(model, alone, text), text
        assert len(read_all(format, text).calls) == 2
    for text in bad:
        assert not any(matches(model, grammar, text) for grammar in (required, auto, alone)), text
    for text in TEXTS:
        assert matches(model, auto, text), text
        assert not matches(model, required, text), text
        assert read_all(format, text).content == text
    trigger = {"llama3": "<|python_tag|>"}.get(format.calls, "")
    for text in single:
        mixed = f"So <: {trigger if trigger not in text else ''}{text}"
        assert matches(model, auto, mixed), mixed
        assert not matches(model, required, mixed), mixed
        assert read_all(format, mixed).content == "So <:"


def test_the_named_tool_alone(model: Model) -> None:
    grammar = grammar_of(HERMES, tool_choice="required", tool_name="get_all")
    assert matches(model, grammar, f"<tool_call>{{{TWO}}}</tool_call>")
    assert not matches(model, grammar, PLAIN_CALL)


def test_thoughts_before_calls(model: Model) -> None:
    for format, opening in ((THINKS, "<think>"), (OPENED, "")):
        required, auto = grammar_of(format, tool_choice="required"), grammar_of(format)
        whole = f"{opening}hm < <tool_call> </thin </think>\n\n{PLAIN_CALL}"
        assert matches(model, required, whole)
        assert matches(model, auto, whole)
        assert matches(model, auto, f"{opening}hm</think>\n\nno call <")
        assert not matches(model, required, f"{opening}hm</think>\n\nno call")
        assert not matches(model, auto, f"{opening}hm</think><tool_call>{{")
        assert matches(model, auto, f"{opening}cut off")
        assert not matches(model, required, f"{opening}cut off")
        said = read_all(format, whole)
        assert (said.reasoning, said.content, len(said.calls)) == ("hm < <tool_call> </thin", "", 1)
    assert matches(model, grammar_of(THINKS, tool_choice="required"), PLAIN_CALL)
    assert not matches(model, grammar_of(OPENED, tool_choice="required"), PLAIN_CALL)


def test_a_grammar_of_the_clients_behind_a_thought(model: Model) -> None:
    """Whatever its rules are called."""
    own = 'root ::= "a" root | thought0\nthought0 ::= "b"'
    for format, opening in ((TextFormat("", "think"), "<think>"), (TextFormat("", "think", True), "")):
        grammar = grammar_of(format, tools=(), grammar=own)
        assert matches(model, grammar, f"{opening}hm</think>\n\naab")
        assert not matches(model, grammar, f"{opening}hm</think>aac")
        assert not matches(model, grammar, f"{opening}hm")
    assert matches(model, grammar_of(TextFormat("", "think"), tools=(), grammar=own), "ab")
    plain = output_grammar(Generate(prompt="x", grammar=own), TextFormat())
    assert plain == OutputGrammar(own)
