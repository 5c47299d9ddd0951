"""The chat template of a GGUF: Jinja as Hugging Face's `apply_chat_template` sets it up, in a sandbox.

The template comes from the model's author, the messages from a client; neither may reach Python, and their
work is bounded (`MAX_*`). The engine thread renders, so an unbounded template would stall every request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddler.chat_formats.fallback import rewritten, tool_object, tools_text
from paddler.chat_formats.families import TemplateKind, kind_of
from paddler.chat_formats.syntax import has_call
from paddler.engine import ModelError
from paddler.errors import InvalidField
from paddler.wire.agent import Generate, Message, Tool, ToolCall
from workers.agent.chat_messages import as_mapping

MAX_PROMPT_CHARS = 32 * 1024 * 1024
MAX_RANGE = 100_000
"""Items of all `range()` in one rendering."""
MAX_SEQUENCE = 1_000_000
"""Length of what `*` makes of a string or list."""


class TemplateError(Exception):
    """The template cannot be compiled."""


class ChatTemplate:
    """A compiled template. `today` gives the local time for `strftime_now`. Raises `TemplateError`.

    `kind` is which calls and reasoning it is for, `variables` what it reads. What it wants the arguments of a call to
    be, whether it writes calls as they are read, and whether it has system messages, is found out by rendering some."""

    def __init__(self, source: str, *, bos: str, eos: str, today: Callable[[], datetime]) -> None:
        self._bos, self._eos, self._today = bos, eos, today
        environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.filters["tojson"] = _tojson
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"the chat template does not compile: line {error.lineno}: {error.message}") from error
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateError(f"the chat template does not compile: {error}") from error
        self._takes_objects = self._takes_system = True
        self.kind, self._wants_parts = TemplateKind(), False
        self._wants_parts = not self._shows_text() and self._shows_text(wants_parts=True)
        self.variables = frozenset(jinja2.meta.find_undeclared_variables(environment.parse(source)))
        self.kind = kind_of(source, self.variables)
        if self.kind.is_native:
            self._takes_objects = self._writes_calls(takes_objects=True)
            if not self._takes_objects and not self._writes_calls(takes_objects=False):
                self.kind = TemplateKind(thought=self.kind.thought)
        if not self.kind.is_native:
            self._takes_system = _PROBE in self._probe((Message("system", _PROBE), _ASKED))

    def _shows_text(self, *, wants_parts: bool = False) -> bool:
        """Whether it renders what a message says: templates of models for images often take lists of parts alone, and
        leave out a text without a word."""
        self._wants_parts = wants_parts
        return _PROBE in self._probe((Message("user", _PROBE),))

    def render_chat(self, payload: Generate, variables: Mapping[str, Any]) -> str:
        """The prompt of a request that has messages; its tools are told of in the template's way, or in ours. Raises
        `InvalidField`."""
        messages, tools = payload.messages or (), payload.callable_tools
        has_calls = any(message.tool_calls or message.role == "tool" for message in messages)
        if not self.kind.is_native and (tools or has_calls):
            told = ""
            if tools:
                is_required = payload.tool_choice == "required"
                told = tools_text(tools, is_required=is_required, is_parallel=payload.parallel_tool_calls)
            messages, tools = rewritten(messages, told, has_system=self._takes_system), ()
        return self.render(
            messages, add_generation_prompt=payload.add_generation_prompt, tools=tools, variables=variables
        )

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Tool] = (),
        variables: Mapping[str, Any] | None = None,
        takes_objects: bool | None = None,
    ) -> str:
        """The prompt of a conversation. Raises `InvalidField` when the template refuses it."""
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        is_short = self.kind.calls.startswith("mistral")
        takes_objects = self._takes_objects if takes_objects is None else takes_objects
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(
                {
                    **(variables or {}),
                    "messages": [
                        as_mapping(
                            message,
                            names,
                            takes_objects=takes_objects,
                            has_short_ids=is_short,
                            in_parts=self._wants_parts,
                        )
                        for message in messages
                    ],
                    "add_generation_prompt": add_generation_prompt,
                    "bos_token": self._bos,
                    "eos_token": self._eos,
                    "nl_token": "\n",  # what llama.cpp takes for the newline token in any vocabulary that has one
                    "tools": [tool_object(tool) for tool in tools] or None,
                    "documents": None,
                    "raise_exception": _raise_exception,
                    "strftime_now": self._strftime_now,
                    "range": _BoundedRange(),
                }
            ):
                parts.append(part)
                size += len(part)
                if size > MAX_PROMPT_CHARS:
                    raise OverflowError(f"the prompt becomes longer than {MAX_PROMPT_CHARS} characters")
        except _RefusedByTemplate as refusal:
            raise InvalidField(
                f"the model's chat template refuses these messages: {refusal}", param="messages"
            ) from None
        except Exception as error:  # whatever a template does with these messages, the request is at fault
            raise InvalidField(
                f"the model's chat template fails on these messages: {type(error).__name__}: {error}", param="messages"
            ) from error
        return "".join(parts)

    def _writes_calls(self, *, takes_objects: bool) -> bool:
        """Whether a call of an earlier turn comes into the prompt as one is read in an output."""
        text = self._probe((_ASKED, Message("assistant", "", tool_calls=(_CALL,))), (_TOOL,), takes_objects)
        return has_call(self.kind.calls, text, _CALL.name) and '{"probe":"it"}' in "".join(text.split())

    def _probe(self, messages: Sequence[Message], tools: Sequence[Tool] = (), takes_objects: bool = True) -> str:
        """A prompt, empty where the template refuses it."""
        try:
            return self.render(messages, add_generation_prompt=False, tools=tools, takes_objects=takes_objects)
        except InvalidField:
            return ""

    def _strftime_now(self, format: str) -> str:
        return self._today().strftime(format)


def check_template(source: str) -> None:
    """Whether it compiles. Raises `ModelError`."""
    try:
        ChatTemplate(source, bos="", eos="", today=lambda: datetime.fromtimestamp(0).astimezone())
    except TemplateError as error:
        raise ModelError(str(error), kind="ChatTemplateDoesNotCompile") from error


_ASKED = Message("user", "asked")
_PROBE = "probe"
_TOOL = Tool("probe", '{"type": "object", "properties": {"probe": {"type": "string"}}}', "Probes.")
_CALL = ToolCall("call00000", "probe", '{"probe": "it"}')


class _RefusedByTemplate(Exception):
    """`raise_exception` was called."""


class _Environment(ImmutableSandboxedEnvironment):
    """Bounds what one operator can make."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and max(abs(left), abs(right)) > 1000:
            raise OverflowError("the chat template computes a number that is too large")
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    num: int = len(sequence) * times  # pyright: ignore[reportUnknownArgumentType]  # of anything
                    if num > MAX_SEQUENCE:
                        raise OverflowError(f"the chat template repeats something {times} times")
        return super().call_binop(context, operator, left, right)


class _BoundedRange:
    """`range`, with a bound on all of one rendering together: nested loops multiply."""

    def __init__(self) -> None:
        self._left = MAX_RANGE

    def __call__(self, *args: int) -> range:
        made = range(*args)
        self._left -= len(made)
        if self._left < 0:
            raise OverflowError(f"the chat template loops over more than {MAX_RANGE} numbers")
        return made


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's part for training; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012  # as the base class declares it

    def parse(self, parser: Any) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise _RefusedByTemplate(message)


def _tojson(
    value: Any,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
    ensure_ascii: bool = False,
) -> str:
    """As Python's `json.dumps`: Jinja's own filter escapes for HTML, which a model was not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
