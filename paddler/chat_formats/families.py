"""The formats: by which marks they are known, in a template as in a text."""

from __future__ import annotations

from msgspec import Struct


class Thought(Struct, frozen=True):
    """What reasoning is between."""

    opening: str
    closing: str


THOUGHTS = {"think": Thought("<think>", "</think>"), "bracket": Thought("[THINK]", "[/THINK]")}


class Calls(Struct, frozen=True):
    """How calls are written: behind `trigger`, and for `llama3` also at the very beginning without it.

    `markers` are all texts of the format that a model may have a control token for. `arguments_key` is what the object
    of a call has the arguments under; empty if a call is no object."""

    trigger: str
    markers: tuple[str, ...]
    arguments_key: str


CALLS = {
    # <tool_call>{"name": "f", "arguments": {}}</tool_call>, once for each call
    "hermes": Calls("<tool_call>", ("<tool_call>", "</tool_call>"), "arguments"),
    # {"name": "f", "parameters": {}}, with or without <|python_tag|> before it; never more than one
    "llama3": Calls("<|python_tag|>", ("<|python_tag|>",), "parameters"),
    # [TOOL_CALLS][{"name": "f", "arguments": {}}, ...]
    "mistral": Calls("[TOOL_CALLS]", ("[TOOL_CALLS]",), "arguments"),
    # [TOOL_CALLS]f[ARGS]{}, once for each call; some write [CALL_ID]xxxxxxxxx before [ARGS]
    "mistral-args": Calls("[TOOL_CALLS]", ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"), ""),
}
FALLBACK = "hermes"
"""What models are asked to write whose template has no tools, or has them in a format that is none of these."""


class TemplateKind(Struct, frozen=True):
    """What a template can: `calls` is a key of `CALLS`, `thought` one of `THOUGHTS` or empty. `is_native`: it takes the
    tools itself; otherwise the messages must be rewritten (`paddler.chat_formats.fallback`)."""

    calls: str = FALLBACK
    is_native: bool = False
    thought: str = ""


def kind_of(source: str, variables: frozenset[str]) -> TemplateKind:
    """From a template's source and the variables that it reads."""
    thought = next((name for name, one in THOUGHTS.items() if one.closing in source), "")
    calls = _native_calls(source) if "tools" in variables else ""
    return TemplateKind(calls or FALLBACK, bool(calls), thought)


def _native_calls(source: str) -> str:
    if "[TOOL_CALLS]" in source:
        return "mistral-args" if "[ARGS]" in source else "mistral"
    # Some write XML between the same tags: <function=f><parameter=p>, or <arg_key>p</arg_key>.
    if "<tool_call>" in source and "<function=" not in source and "<arg_key>" not in source:
        return "hermes"
    if "<|start_header_id|>" in source and '"parameters"' in source:
        return "llama3"
    return ""
