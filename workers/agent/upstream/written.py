"""What a server has told apart, written as one text again, as models write it: `paddler.chat_formats` reads it.

So the journal of such a request is like any other, and another agent can go on with it.
"""

from __future__ import annotations

import re

from paddler.chat_formats.families import CALLS, FALLBACK, THOUGHTS
from paddler.chat_formats.reading import Said, read_all
from paddler.chat_formats.syntax import ObjectScanner
from paddler.wire.agent import Generate
from paddler.wire.balancer import TextFormat
from workers.agent.upstream.chunks import Call
from workers.agent.upstream.trouble import Broken

_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_THOUGHT = "think"


def format_for(payload: Generate) -> TextFormat:
    """Log probabilities go with a text that is content alone."""
    if payload.messages is None or payload.logprobs is not None:
        return TextFormat()
    return TextFormat(FALLBACK if payload.callable_tools else "", _THOUGHT)


class Begun:
    """The text of earlier attempts, read."""

    def __init__(self, format: TextFormat, text: str) -> None:
        self.said: Said = read_all(format, [text])
        thought = THOUGHTS.get(format.thought)
        has_opened = thought is not None and (format.is_thinking or text.lstrip().startswith(thought.opening))
        self.is_thinking = thought is not None and has_opened and thought.closing not in text


class Writer:
    """Gets deltas, gives text. `begun` is what has been written before."""

    def __init__(self, format: TextFormat, begun: Begun) -> None:
        self._format = format
        self._is_thinking = begun.is_thinking
        self._open: int | None = None
        self._next = 0
        """The number of the call that follows those written."""
        self._scanner = ObjectScanner()
        self._is_whole = False
        self._has_arguments = False
        self._waiting: dict[int, tuple[str, str]] = {}
        """Names and arguments of calls that come while another one is open."""

    def reasoning(self, text: str) -> str:
        thought = THOUGHTS.get(self._format.thought)
        if thought is None:
            raise Broken("the server tells of its reasoning, where an answer was asked for that is text alone")
        if self._is_thinking:
            return text
        # A second one, behind content, has no place of its own: it is shown as it is written.
        self._is_thinking = True
        return self._end_call() + thought.opening + text

    def content(self, text: str) -> str:
        return self._end_thought() + self._end_call() + text

    def calls(self, calls: list[Call]) -> str:
        return "".join(map(self._call, calls))

    def finish(self) -> str:
        """The end of what is open, if that is complete."""
        is_cut = self._open is not None and self._has_arguments and not self._is_whole
        text = self._end_call()
        for index in () if is_cut else sorted(self._waiting):
            name, arguments = self._waiting[index]
            text += self._begin_call(index, name) + self._arguments(arguments) + self._end_call()
        self._waiting.clear()
        return text

    def _call(self, call: Call) -> str:
        if not self._format.calls:
            raise Broken("the server calls a tool, but it has been given none")
        function = call.function
        name = (function.name if function else None) or ""
        arguments = (function.arguments if function else None) or ""
        index = call.index
        if index is None:
            index = self._next if name or self._open is None else self._open
        if index == self._open:
            return self._arguments(arguments)
        known, before = self._waiting.pop(index, ("", ""))
        name, arguments = known or name, before + arguments
        if self._open is not None and not self._is_whole and self._has_arguments:
            self._waiting[index] = name, arguments
            return ""
        return self._end_thought() + self._end_call() + self._begin_call(index, name) + self._arguments(arguments)

    def _begin_call(self, index: int, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise Broken("the server calls a tool by a name that is none")
        if self._format.calls != FALLBACK:
            raise Broken(
                f"the answer was begun where calls are written as {self._format.calls}, which is not done here"
            )
        self._open, self._next = index, index + 1
        self._scanner, self._is_whole, self._has_arguments = ObjectScanner(), False, False
        return f'{CALLS[FALLBACK].trigger}\n{{"name": "{name}", "{CALLS[FALLBACK].arguments_key}": '

    def _arguments(self, text: str) -> str:
        if not self._has_arguments:
            text = text.lstrip()
            if text and not text.startswith("{"):
                raise Broken("the server calls a tool with arguments that are no object")
        if self._is_whole or not text:
            return ""
        self._has_arguments = True
        num, self._is_whole = self._scanner.scan(text)
        return text[:num]

    def _end_call(self) -> str:
        if self._open is None:
            return ""
        self._open = None
        if self._has_arguments and not self._is_whole:
            return ""  # cut off: it stays so
        return ("" if self._has_arguments else "{}") + f"}}\n{CALLS[FALLBACK].markers[1]}\n"

    def _end_thought(self) -> str:
        if not self._is_thinking:
            return ""
        self._is_thinking = False
        return f"\n{THOUGHTS[self._format.thought].closing}\n\n"
