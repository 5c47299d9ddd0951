"""The rules of one tool's arguments, which are most of the work of a grammar of tools: they are kept for each tool.

Nothing of a tool refers to another one, so what `check_gbnf` bounds in a whole grammar is bounded here for each, and
sums over all of them by whoever puts them together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from paddler.structure.expansion import Expansion, check_expansion
from paddler.structure.gbnf import ROOT, read_gbnf
from paddler.structure.json_schema import SHARED_RULES, json_schema_rules
from paddler.structure.rules import GrammarError, Rules
from paddler.structure.schema_parts import SchemaError
from paddler.wire.agent import Tool

MAX_KEPT = 256
"""Tools, with at most 160 KB each; twice what a request can have."""
TOO_DEEP = "it is nested too deeply"


class ToolSchemaError(ValueError):
    """The parameters of tool number `index` cannot be enforced."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class ToolRules(Struct, frozen=True):
    """`item` of GBNF for the arguments of a tool, and the rules that it needs beside `SHARED_RULES`; llama.cpp survives
    them. They begin with `{`, never with nothing."""

    item: str
    rules: Mapping[str, str]
    size: int
    expansion: Expansion


def tool_rules(index: int, tool: Tool) -> ToolRules:
    """`index` is its place among those of the request, which its rules are named after. Raises `ToolSchemaError`."""
    try:
        return _tool_rules(index, tool.parameters)
    except (SchemaError, GrammarError) as error:
        raise ToolSchemaError(index, str(error)) from None
    except RecursionError:
        raise ToolSchemaError(index, TOO_DEEP) from None


def convert_some(tools: Sequence[Tool], has_time: Callable[[], bool]) -> bool:
    """Convert tools, so that a grammar of all of them will be quick; the first without asking for time. Returns whether
    all are converted; what is wrong with one whoever makes that grammar finds out."""
    for index, tool in enumerate(tools):
        if index and not has_time():
            return False
        try:
            tool_rules(index, tool)
        except ToolSchemaError:
            break
    return True


@lru_cache(maxsize=MAX_KEPT)
def _tool_rules(index: int, parameters: str) -> ToolRules:
    item, rules = json_schema_rules(json.loads(parameters), f"tool{index}-")
    own = read_gbnf("\n".join(f"{name} ::= {rule}" for name, rule in (rules | {ROOT: item}).items()))
    return ToolRules(item, rules, sum(map(len, rules.values())), check_expansion(_shared() | own))


@lru_cache(maxsize=1)
def _shared() -> Rules:
    return read_gbnf("\n".join(f"{name} ::= {rule}" for name, rule in SHARED_RULES.items()))
