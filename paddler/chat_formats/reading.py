"""Reading an output while it comes: text in, pieces of the answer out.

What has come out is a function of the text so far, however it was cut: so anybody can read the beginning again and go
on. Nothing is an error: what is no call, or not all of one, is content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from paddler.chat_formats.families import CALLS, THOUGHTS
from paddler.chat_formats.syntax import SYNTAXES, ObjectScanner, Part, longest_beginning
from paddler.wire.balancer import TextFormat


class Content(Struct, frozen=True):
    text: str


class Reasoning(Struct, frozen=True):
    text: str


class CallBegun(Struct, frozen=True):
    index: int
    name: str


class Arguments(Struct, frozen=True):
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


Delta = Content | Reasoning | CallBegun | Arguments


class Said(Struct):
    """A whole answer; `calls` are names and arguments."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = []

    @property
    def has_whole_calls(self) -> bool:
        """There are calls, and the arguments of the last of them are complete."""
        return bool(self.calls) and ObjectScanner().scan(self.calls[-1][1])[1]

    def add(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            match delta:
                case Content(text):
                    self.content += text
                case Reasoning(text):
                    self.reasoning += text
                case CallBegun(_, name):
                    self.calls.append((name, ""))
                case Arguments(index, text):
                    name, arguments = self.calls[index]
                    self.calls[index] = name, arguments + text


def read_all(format: TextFormat, texts: Iterable[str]) -> Said:
    reader, said = OutputReader(format), Said()
    for text in texts:
        said.add(reader.push(text))
    said.add(reader.finish())
    return said


class OutputReader:
    """White space at the edges of reasoning, between it and content, and around calls belongs to none of them."""

    def __init__(self, format: TextFormat) -> None:
        self._thought = THOUGHTS[format.thought] if format.thought else None
        self._calls = CALLS[format.calls] if format.calls else None
        self._syntax = SYNTAXES[format.calls] if format.calls else None
        self._text = ""
        self._before = ""
        """What has been read of a call whose name has not come: content, if it never does."""
        self._is_fresh = True
        """The next white space is at an edge."""
        self._part: Part | None = None
        self._scanner = ObjectScanner()
        self._deltas: list[Delta] = []
        self.num_calls = 0
        self._step: Callable[[bool], bool]
        if self._thought is None:
            self._begin_content()
        else:
            self._step = self._in_thought if format.is_thinking else self._before_thought

    @property
    def has_whole_calls(self) -> bool:
        """As that of what has been said."""
        return self.num_calls > 0 and self._step != self._in_arguments

    def push(self, text: str) -> list[Delta]:
        self._text += text
        return self._read(False)

    def finish(self) -> list[Delta]:
        """What is left, at the end of the text."""
        return self._read(True)

    def _read(self, at_end: bool) -> list[Delta]:
        while self._text and self._step(at_end):
            pass
        if at_end and self._before:
            self._refuse()
            while self._text and self._step(at_end):
                pass
        deltas, self._deltas = self._deltas, []
        return deltas

    def _begin_content(self) -> None:
        """The beginning of what is no reasoning."""
        has_opening = self._syntax is not None and self._syntax.opening is not None
        self._is_fresh = self._thought is not None
        self._step = self._at_opening if has_opening else self._in_content

    # Each step reads something off the text, and says whether there may be more to read.

    def _before_thought(self, at_end: bool) -> bool:
        assert self._thought is not None
        begin, opening = self._text.lstrip(), self._thought.opening
        if begin.startswith(opening):
            self._text = begin[len(opening) :]
            self._step = self._in_thought
            return True
        if opening.startswith(begin) and not at_end:
            return False
        self._thought = None
        self._begin_content()
        return True

    def _in_thought(self, at_end: bool) -> bool:
        assert self._thought is not None
        closing = self._thought.closing
        if self._is_fresh:
            self._text = self._text.lstrip()
            if not self._text:
                return False
        at = self._text.find(closing)
        if at >= 0:
            self._say(Reasoning, self._text[:at].rstrip())
            self._text = self._text[at + len(closing) :]
            self._begin_content()
            return True
        num = len(self._text) if at_end else len(self._text) - longest_beginning(self._text, closing)
        told = self._text[:num] if at_end else self._text[:num].rstrip()
        self._say(Reasoning, told)
        self._is_fresh = self._is_fresh and not told
        self._text = self._text[len(told) :]
        return False

    def _at_opening(self, at_end: bool) -> bool:
        """A call without a trigger."""
        assert self._syntax is not None
        assert self._syntax.opening is not None
        if (found := self._syntax.opening.whole.match(self._text)) is not None:
            self._before, self._text = found[0], self._text[found.end() :]
            self._await(self._syntax.name)
            return True
        if self._syntax.opening.beginning.fullmatch(self._text) and not at_end:
            return False
        self._step = self._in_content
        return True

    def _in_content(self, at_end: bool) -> bool:
        if self._is_fresh:
            self._text = self._text.lstrip()
            if not self._text:
                return False
        if self._calls is None or self._syntax is None:
            self._say(Content, self._text)
            self._text, self._is_fresh = "", False
            return False
        trigger = self._calls.trigger
        at = self._text.find(trigger)
        if at >= 0:
            told = self._text[:at].rstrip()
            self._before = self._text[len(told) : at + len(trigger)]
            self._text = self._text[at + len(trigger) :]
            self._await(self._syntax.header)
        elif at_end:
            told, self._text = self._text, ""
        else:
            told = self._text[: len(self._text) - longest_beginning(self._text, trigger)].rstrip()
            self._text = self._text[len(told) :]
        self._say(Content, told)
        self._is_fresh = self._is_fresh and not told
        return at >= 0

    def _await(self, part: Part) -> None:
        self._part = part
        self._step = self._in_part

    def _in_part(self, at_end: bool) -> bool:
        """What is between a trigger and arguments, or between arguments and what follows a call."""
        assert self._part is not None
        assert self._syntax is not None
        if (found := self._part.whole.match(self._text)) is not None:
            name, follows = found.groupdict().get("name"), found.groupdict().get("follows")
            self._text = self._text[found.end() :]
            if name is not None:
                self._before = ""
                self._deltas.append(CallBegun(self.num_calls, name))
                self.num_calls += 1
                self._scanner = ObjectScanner()
                self._step = self._in_arguments
            elif follows == ",":
                self._before = found[0]
                self._await(self._syntax.next_header)
            else:
                self._is_fresh = True
                self._step = self._in_content
            return True
        if self._part.beginning.fullmatch(self._text):
            if at_end and not self._before:
                self._text = ""  # cut off between the arguments and the end of a call
            return False
        self._refuse()
        return True

    def _in_arguments(self, _: bool) -> bool:
        assert self._syntax is not None
        num, is_complete = self._scanner.scan(self._text)
        self._deltas.append(Arguments(self.num_calls - 1, self._text[:num]))
        self._text = self._text[num:]
        if is_complete:
            if self._syntax.closing is None:
                self._is_fresh = True
                self._step = self._in_content
            else:
                self._await(self._syntax.closing)
        return is_complete

    def _refuse(self) -> None:
        """It is no call: content up to here, and perhaps a call behind it."""
        self._say(Content, self._before)
        self._before, self._is_fresh = "", self._is_fresh and not self._before
        self._step = self._in_content

    def _say(self, kind: type[Content] | type[Reasoning], text: str) -> None:
        if text:
            self._deltas.append(kind(text))
