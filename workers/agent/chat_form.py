"""What the output of a request has to be: in which format, held to which grammar, and with which tokens heard."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from paddler.chat_formats.families import CALLS, THOUGHTS, TemplateKind
from paddler.chat_formats.grammars import OutputGrammar, enforced_tools, output_grammar
from paddler.chat_formats.tool_rules import ToolSchemaError, convert_some
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


_PLAIN = TextFormat()
