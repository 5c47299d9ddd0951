"""What the output of a request has to be: in which format, held to which grammar, and with which tokens heard."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from paddler.chat_formats.families import CALLS, THOUGHTS, TemplateKind
from paddler.chat_formats.grammars import OutputGrammar, enforced_tools, output_grammar
from paddler.chat_formats.tool_rules import ToolSchemaError, convert_some
from paddler.chat_formats.variables import ENABLE_THINKING
from paddler.errors import InvalidField
from paddler.structure.rules import GrammarError
from paddler.wire.agent import Generate
from paddler.wire.balancer import TextFormat
from workers.agent.llama import Model
from workers.agent.templates import ChatTemplate
from workers.agent.tokens import TokenArray

_TAIL = 24
"""Tokens of a prompt's end among which an opened thought is looked for."""


class Form(Struct, frozen=True):
    """`format` None: all of the text is content. `pieces` are the bytes that each token gives to the text."""

    format: TextFormat | None
    grammar: OutputGrammar | None
    pieces: list[bytes]


class Forms:
    """For one model. Marks of a format that are control tokens, which give no text elsewhere, are written out in the
    texts of that format, and in no others."""

    def __init__(self, model: Model, template: ChatTemplate | None) -> None:
        self._model = model
        self._kind = TemplateKind() if template is None else template.kind
        self._pieces: dict[tuple[str, str], list[bytes]] = {("", ""): model.pieces}

    def are_made(self, payload: Generate, has_time: Callable[[], bool]) -> bool:
        """Do what takes longest of `of`, as long as there is time; until it is done, it is to be called again."""
        return convert_some(enforced_tools(payload), has_time)

    def of(self, payload: Generate, prompt: TokenArray) -> Form:
        """Raises `InvalidField`."""
        format = self._format(payload, prompt)
        if format == _PLAIN and payload.grammar is None:
            return Form(None, None, self._model.pieces)
        try:
            grammar = output_grammar(payload, format)
        except ToolSchemaError as error:
            param = f"tools[{error.index}].function.parameters"
            raise InvalidField(f"`{param}`: {error}.", param=param) from None
        except GrammarError as error:
            raise InvalidField(f"`tools`: {error}.", param="tools") from None
        if format == _PLAIN:
            return Form(None, grammar, self._model.pieces)
        if payload.logprobs is not None:
            raise InvalidField(
                "log probabilities are those of an answer that is text alone; this model thinks before it answers, or "
                "has tools: leave `logprobs` out",
                param="logprobs",
            )
        return Form(format, grammar, self._spoken(format))

    def _format(self, payload: Generate, prompt: TokenArray) -> TextFormat:
        if payload.messages is None:
            return _PLAIN
        calls = self._kind.calls if payload.callable_tools else ""
        if not self._kind.thought:
            return TextFormat(calls)
        thought = THOUGHTS[self._kind.thought]
        pieces = [self._model.piece(token, special=True) for token in prompt[-_TAIL:].tolist()]
        tail = b"".join(pieces).decode("utf-8", "replace").rstrip()
        if tail.endswith(thought.closing):
            return TextFormat(calls)
        return TextFormat(calls, self._kind.thought, tail.endswith(thought.opening))

    def _spoken(self, format: TextFormat) -> list[bytes]:
        key = format.calls, format.thought
        if key not in self._pieces:
            marks = CALLS[format.calls].markers if format.calls else ()
            if format.thought:
                marks = (*marks, THOUGHTS[format.thought].opening, THOUGHTS[format.thought].closing)
            pieces = self._model.pieces.copy()
            for mark in marks:
                tokens = self._model.tokenize(mark)
                if len(tokens) == 1 and not pieces[tokens[0]] and int(tokens[0]) not in self._model.end_tokens:
                    pieces[tokens[0]] = mark.encode()
            self._pieces[key] = pieces
        return self._pieces[key]


def template_variables(payload: Generate, template: ChatTemplate) -> dict[str, Any]:
    """What the client sets. Raises `InvalidField` for what the template does not look at: it would change nothing. Only
    `enable_thinking` of the payload itself is a wish."""
    wished = {} if payload.enable_thinking is None else {ENABLE_THINKING: payload.enable_thinking}
    if not payload.template_kwargs:
        return wished
    variables: dict[str, Any] = json.loads(payload.template_kwargs)
    for name, value in variables.items():
        is_as_asked = name == ENABLE_THINKING and value is bool(template.kind.thought)
        if name not in template.variables and not is_as_asked:
            raise InvalidField(
                f"the chat template of this model has no variable {name[:60]!r}: leave it out",
                param=f"chat_template_kwargs.{name[:60]}",
            )
    return wished | variables


_PLAIN = TextFormat()
