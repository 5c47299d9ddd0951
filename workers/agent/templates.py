"""The chat template of a GGUF: Jinja as Hugging Face's `apply_chat_template` sets it up, in a sandbox.

The template comes from the model's author, the messages from a client; neither may reach Python, and their
work is bounded (`MAX_*`). The engine thread renders, so an unbounded template would stall every request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddler.errors import InvalidField
from paddler.wire.agent import Message

_PROBE = "Is this text shown?"
MAX_PROMPT_CHARS = 32 * 1024 * 1024
MAX_RANGE = 100_000
"""Items of all `range()` in one rendering."""
MAX_SEQUENCE = 1_000_000
"""Length of what `*` makes of a string or list."""


class TemplateError(Exception):
    """The template cannot be compiled."""


class ChatTemplate:
    """A compiled template. `today` gives the local time for `strftime_now`. Raises `TemplateError`."""

    def __init__(self, source: str, *, bos: str, eos: str, today: Callable[[], datetime]) -> None:
        self._bos, self._eos, self._today = bos, eos, today
        environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.filters["tojson"] = _tojson
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateError(f"the model's chat template cannot be compiled: {error}") from error
        self._wants_parts = False
        self._wants_parts = not self._shows_text() and self._shows_text(wants_parts=True)

    def _shows_text(self, *, wants_parts: bool = False) -> bool:
        """Whether it renders what a message says: templates of models for images often take lists of parts alone, and
        leave out a text without a word."""
        self._wants_parts = wants_parts
        try:
            return _PROBE in self.render((Message("user", _PROBE),), add_generation_prompt=True)
        except InvalidField:
            return False

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The prompt of a conversation. Raises `InvalidField` when the template refuses it."""
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(
                messages=[_as_mapping(message, in_parts=self._wants_parts) for message in messages],
                add_generation_prompt=add_generation_prompt,
                bos_token=self._bos,
                eos_token=self._eos,
                tools=None,
                documents=None,
                raise_exception=_raise_exception,
                strftime_now=self._strftime_now,
                range=_BoundedRange(),
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

    def _strftime_now(self, format: str) -> str:
        return self._today().strftime(format)


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


def _as_mapping(message: Message, *, in_parts: bool) -> dict[str, Any]:
    content = [{"type": "text", "text": message.content}] if in_parts else message.content
    mapping: dict[str, Any] = {"role": message.role, "content": content}
    if message.name is not None:
        mapping["name"] = message.name
    return mapping


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
