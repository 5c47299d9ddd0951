"""The output of a request as one grammar: reasoning, free text, calls, in this order and as far as they may be there.

llama.cpp has lazy grammars, which sleep until a pattern or a token has come. They are not used: one cannot be asked
whether a token may follow that completes the pattern and goes on behind it, and ends the process (an exception
through C) when it may not. Here free text is part of the grammar, up to the mark behind which a call begins. So a draw
is asked about like any other, and the state is a function of the tokens accepted, which is what a hand-over needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import cast

import msgspec
from msgspec import Struct, structs

from paddler.chat_formats.families import CALLS, THOUGHTS
from paddler.chat_formats.tool_rules import TOO_DEEP, ToolRules, tool_rules
from paddler.structure.expansion import check_expansion, check_sum
from paddler.structure.gbnf import ROOT, read_gbnf
from paddler.structure.json_schema import write_rules
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import SchemaError
from paddler.structure.writing import any_but_at_first, any_until, continued, json_literal, literal
from paddler.wire.agent import Generate, Tool
from paddler.wire.balancer import TextFormat

MAX_CHARS = 131_072
"""Of the grammar of all tools of a request together. It is made in 0.3 s, in a thread of a balancer's and over several
steps of an agent's (`tool_rules.py`)."""

_GAP = r"[ \n]?"
_BEHIND_THOUGHT = r"[ \n]{0,4}"


class OutputGrammar(Struct, frozen=True):
    gbnf: str
    root: str = ROOT


def output_grammar(payload: Generate, format: TextFormat) -> OutputGrammar | None:
    """What the output of a request has to be, written in `format`. None: anything.

    Raises `ToolSchemaError`, or `GrammarError` for tools that are too much together."""
    if payload.callable_tools:
        is_required, is_parallel = payload.tool_choice == "required", payload.parallel_tool_calls
        return tools_grammar(enforced_tools(payload), format, is_required=is_required, is_parallel=is_parallel)
    if payload.grammar is None:
        return None
    if not format.thought:
        return OutputGrammar(payload.grammar)
    prefix = "thought"
    while prefix in payload.grammar:
        prefix += "x"
    rules = _thought_rules(format, ROOT, prefix, prefix, may_end=False)
    own = "\n".join(f"{name} ::= {rule}" for name, rule in rules.items())
    return OutputGrammar(f"{payload.grammar}\n{own}", prefix)


def enforced_tools(payload: Generate) -> Sequence[Tool]:
    """Those that its grammar has."""
    name = payload.tool_name
    return [tool for tool in payload.callable_tools if name is None or tool.name == name]


def tools_grammar(tools: Sequence[Tool], format: TextFormat, *, is_required: bool, is_parallel: bool) -> OutputGrammar:
    """Conversations come back with the same tools; one that has changed costs no more than itself. Raises as
    `output_grammar`."""
    bare = tuple(structs.replace(tool, description=None) for tool in tools)  # what is kept is what the grammar needs
    return _tools_grammar(bare, format, is_required, is_parallel)


@lru_cache(maxsize=16)
def _tools_grammar(tools: tuple[Tool, ...], format: TextFormat, is_required: bool, is_parallel: bool) -> OutputGrammar:
    made: list[ToolRules] = []
    for index, tool in enumerate(tools):
        made.append(tool_rules(index, tool))
        if sum(one.size for one in made) > MAX_CHARS:
            raise GrammarError(f"their schemas become a grammar of more than {MAX_CHARS} characters")
    names = [tool.name for tool in tools]
    # A rule around the arguments never begins with them, so it does not matter which they are.
    around = read_gbnf(write_rules(_rules_around(dict.fromkeys(names, "object"), format, is_required, is_parallel)))
    check_sum([check_expansion(around), *(one.expansion for one in made)])
    arguments = {name: one.item for name, one in zip(names, made, strict=True)}
    rules = _rules_around(arguments, format, is_required, is_parallel)
    gbnf = write_rules({name: rule for one in made for name, rule in one.rules.items()} | rules)
    if len(gbnf) > MAX_CHARS:
        raise GrammarError(f"with their names they become a grammar of more than {MAX_CHARS} characters")
    return OutputGrammar(gbnf)


def _rules_around(
    arguments: Mapping[str, str], format: TextFormat, is_required: bool, is_parallel: bool
) -> dict[str, str]:
    """All but those of the arguments, which are items of GBNF by the names of the tools."""
    rules = _calls_rules(format.calls, arguments, is_parallel)
    body = "calls"
    if not is_required:
        rules |= _text_rules(format.calls)
        body = "opening0" if format.calls == "llama3" else "free0"
    return rules | _thought_rules(format, body, "thought", ROOT, may_end=not is_required)


def _thought_rules(format: TextFormat, body: str, prefix: str, root: str, *, may_end: bool) -> dict[str, str]:
    if not format.thought:
        return {root: body}
    thought = THOUGHTS[format.thought]
    behind = body if may_end else f"{_BEHIND_THOUGHT} {body}"
    begin = f"{prefix}0" if format.is_thinking else f"{literal(thought.opening)} {prefix}0 | {body}"
    return {**any_until(thought.closing, behind, prefix, may_end=may_end), root: begin}


def _text_rules(calls: str) -> dict[str, str]:
    """Text without calls, or with some behind it."""
    trigger = CALLS[calls].trigger
    rules = any_until(trigger, "behind-trigger", "free", may_end=True)
    if calls == "llama3":
        rules |= any_but_at_first(llama3_opening(), "call-name", trigger, "opening", "free")
    return rules


def llama3_opening() -> Sequence[tuple[str, bool]]:
    """The characters that a call begins with, and whether white space may be before each."""
    spaced = ("{", '"', ":", '"')
    text = '{"name":"'
    places = (0, 1, 7, 8)
    assert tuple(text[place] for place in places) == spaced
    return [(char, index in places) for index, char in enumerate(text)]


def _calls_rules(calls: str, arguments: Mapping[str, str], is_parallel: bool) -> dict[str, str]:
    """`calls`, one or several, and `behind-trigger`, what of them comes behind the first trigger."""
    rules: dict[str, str] = {}
    kind = CALLS[calls]

    def name_rule(body: str) -> str:
        name = f"name{len(rules)}"
        rules[name] = body
        return name

    if not kind.arguments_key:
        words = {f"{name}[": f"call-args {item}" for name, item in arguments.items()}
        rules["call-args"] = '("CALL_ID]" [a-zA-Z0-9]{9} "[ARGS]" | "ARGS]")'
        rules["call"] = continued(words, name_rule)
    else:
        key = f'ws "," ws {json_literal(kind.arguments_key)} ws ":" ws'
        words = {f'{name}"': f'{key} {item} ws "}}"' for name, item in arguments.items()}
        rules["call-name"] = continued(words, name_rule)
        rules["call"] = r'"{" ws "\"name\"" ws ":" ws "\"" call-name'
    return rules | _framing(calls, literal(kind.trigger), is_parallel)


def _framing(calls: str, trigger: str, is_parallel: bool) -> dict[str, str]:
    match calls:
        case "hermes":
            more = f"({_GAP} {trigger} hermes-call)*" if is_parallel else ""
            rules = {
                "hermes-call": f'{_GAP} call {_GAP} "</tool_call>"',
                "behind-trigger": f"hermes-call {more}",
                "calls": f"{trigger} behind-trigger",
            }
        case "llama3":
            rules = {"behind-trigger": f"{_GAP} call", "calls": f"{trigger} behind-trigger | call"}
        case "mistral":
            more = '("," ws call ws)*' if is_parallel else ""
            rules = {"behind-trigger": f'{_GAP} "[" ws call ws {more} "]"', "calls": f"{trigger} behind-trigger"}
        case _:
            more = f"({trigger} call)*" if is_parallel else ""
            rules = {"behind-trigger": f"call {more}", "calls": f"{trigger} behind-trigger"}
    return rules


_OF_NO_ARGUMENTS = {"type", "properties", "required", "title", "description", "$schema"}


def arguments_schema(parameters: object) -> str:
    """The JSON text of a tool's parameters as they are enforced: of an object in any case, of one without members when
    there are none or it names none, as clients write the schema of a function without arguments. Raises
    `SchemaError`."""
    if parameters is None:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, dict):
        raise SchemaError("", "a schema must be an object")
    schema = cast("dict[str, object]", parameters)
    if schema.get("type", "object") != "object":
        raise SchemaError("", '`type` must be "object": arguments have names')
    if schema.get("properties") == {} and schema.keys() <= _OF_NO_ARGUMENTS:
        schema = {**schema, "additionalProperties": False}
    try:
        return msgspec.json.encode({"type": "object", **schema}).decode()
    except RecursionError:
        raise SchemaError("", TOO_DEEP) from None
