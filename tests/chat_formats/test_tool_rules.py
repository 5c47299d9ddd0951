"""Grammars of tools out of parts that are kept: as safe as if the whole had been looked at, and made again in parts."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from random_schemas import random_object

from paddler.chat_formats.families import CALLS
from paddler.chat_formats.grammars import MAX_CHARS, tools_grammar
from paddler.chat_formats.tool_rules import ToolSchemaError, _tool_rules, convert_some
from paddler.structure.gbnf import check_gbnf
from paddler.structure.rules import GrammarError
from paddler.wire.agent import Tool
from paddler.wire.balancer import TextFormat


def tool(number: int, **properties: Any) -> Tool:
    return Tool(f"tool_{number}", json.dumps({"type": "object", "properties": properties}))


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("thought", ["", "think"])
def test_what_passes_in_parts_passes_as_a_whole(calls: str, thought: str) -> None:
    rng = random.Random(7)
    for is_required in (False, True):
        tools = [Tool(f"f{number}", json.dumps(random_object(rng))) for number in range(rng.randint(1, 12))]
        grammar = tools_grammar(tools, TextFormat(calls, thought), is_required=is_required, is_parallel=True)
        check_gbnf(grammar.gbnf, grammar.root, MAX_CHARS)


def test_the_parts_are_bounded_together() -> None:
    """Each is small enough alone."""
    text = {"type": "string", "maxLength": 990}
    tools = [tool(number, a=text, b=text, c=text, d=text) for number in range(12)]
    tools_grammar(tools[:2], TextFormat("hermes"), is_required=True, is_parallel=True)
    with pytest.raises(GrammarError, match="repetitions make more than"):
        tools_grammar(tools, TextFormat("hermes"), is_required=True, is_parallel=True)
    long = [tool(number, **{f"p{n}": {"enum": ["x" * 300]} for n in range(40)}) for number in range(12)]
    with pytest.raises(GrammarError, match=f"more than {MAX_CHARS} characters"):
        tools_grammar(long, TextFormat("hermes"), is_required=True, is_parallel=True)


def test_a_changed_tool_costs_one() -> None:
    tools = [tool(number, changed={"const": "first"}) for number in range(20)]
    tools_grammar(tools, TextFormat("hermes"), is_required=True, is_parallel=True)
    before = _tool_rules.cache_info()
    tools[7] = tool(7, changed={"const": "second"})
    tools_grammar(tools, TextFormat("hermes"), is_required=True, is_parallel=True)
    after = _tool_rules.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 19)


def test_tools_are_converted_as_far_as_the_time_allows() -> None:
    tools = [tool(number, part={"const": "of it"}) for number in range(6)]
    first = _tool_rules.cache_info().misses
    times = iter([True, True, False])
    assert not convert_some(tools, lambda: next(times))
    assert _tool_rules.cache_info().misses - first == 3
    assert convert_some(tools, lambda: True)
    assert _tool_rules.cache_info().misses - first == 6
    bad = Tool("bad", '{"type":"object","not":{}}')
    assert convert_some([bad, *tools], lambda: True)
    with pytest.raises(ToolSchemaError, match="`not` cannot be enforced"):
        tools_grammar([bad], TextFormat("hermes"), is_required=True, is_parallel=True)
