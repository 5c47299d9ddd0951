"""The output of a response while it comes: items that begin, grow and end.

What they are is a function of the frames of the journal, so that whoever renders a response makes the same items, and
the same steps in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, assert_never

from msgspec import Struct

from api.openai.logprobs import LogprobStream
from api.openai.objects import SampledToken
from paddler.chat_formats.ids import call_id
from paddler.chat_formats.reading import Arguments, CallBegun, Content, Delta, OutputReader, Reasoning
from paddler.wire.balancer import TextFormat, TokenLogprob, Tokens

Kind = Literal["message", "reasoning", "function_call"]
_PREFIXES: dict[Kind, str] = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class OutputItem(Struct):
    """`texts` are the pieces of its text, or of the arguments of a call; `logprobs` are those of a message."""

    kind: Kind
    index: int
    id: str
    texts: list[str]
    logprobs: list[SampledToken]
    name: str = ""
    call_id: str = ""
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Begun(Struct, frozen=True):
    item: OutputItem


class Grown(Struct, frozen=True):
    item: OutputItem
    text: str
    logprobs: list[SampledToken]


class Ended(Struct, frozen=True):
    item: OutputItem


Step = Begun | Grown | Ended


class Output:
    """Takes what a request says. `format` is that of its text; without one all of it is one message."""

    def __init__(self, request_id: str, format: TextFormat | None = None, *, has_logprobs: bool = False) -> None:
        self._request_id = request_id
        self._reader = None if format is None else OutputReader(format)
        self._is_thinking = format is not None and format.is_thinking
        self._logprobs = LogprobStream() if has_logprobs else None
        self._open: OutputItem | None = None
        self.items: list[OutputItem] = []
        self.reasoning_tokens = 0

    def push(self, text: str, logprobs: Sequence[TokenLogprob] = (), num_tokens: int = 0) -> list[Step]:
        """`num_tokens` are those of the output so far."""
        steps: list[Step] = []
        if self._reader is None:
            told = [] if self._logprobs is None else self._logprobs.push(text, logprobs)
            if text or told:
                self._grow("message", text, steps, told)
            return steps
        for delta in self._reader.push(text):
            self._take(delta, steps)
        if self._open.kind == "reasoning" if self._open is not None else self._is_thinking and not self.items:
            self.reasoning_tokens = num_tokens
        return steps

    def finish(self, *, is_whole: bool) -> list[Step]:
        """Nothing comes any more; what is open ends. `is_whole`: it was not cut."""
        steps: list[Step] = []
        if self._reader is not None:
            for delta in self._reader.finish():
                self._take(delta, steps)
            # A stop string may end a call in the middle.
            if self._open is not None and self._open.kind == "function_call":
                is_whole = is_whole and self._reader.has_whole_calls
        if not self.items:
            self._begin("message", steps)
        self._end("completed" if is_whole else "incomplete", steps)
        return steps

    def break_off(self) -> None:
        """The request has failed: what is open stays as it is."""
        self._end("incomplete", [])

    def _take(self, delta: Delta, steps: list[Step]) -> None:
        match delta:
            case Content(text):
                self._grow("message", text, steps)
            case Reasoning(text):
                self._grow("reasoning", text, steps)
            case CallBegun(index, name):
                self._begin("function_call", steps, name=name, call_id=call_id(self._request_id, index))
            case Arguments(_, text):
                self._grow("function_call", text, steps)
            case _:
                assert_never(delta)

    def _grow(self, kind: Kind, text: str, steps: list[Step], logprobs: Iterable[SampledToken] = ()) -> None:
        item = self._open
        if item is None or item.kind != kind:
            item = self._begin(kind, steps)
        told = list(logprobs)
        item.texts.append(text)
        item.logprobs += told
        steps.append(Grown(item, text, told))

    def _begin(self, kind: Kind, steps: list[Step], *, name: str = "", call_id: str = "") -> OutputItem:
        self._end("completed", steps)
        index = len(self.items)
        item = OutputItem(kind, index, f"{_PREFIXES[kind]}_{self._request_id}_{index}", [], [], name, call_id)
        self.items.append(item)
        self._open = item
        steps.append(Begun(item))
        return item

    def _end(self, status: Literal["completed", "incomplete"], steps: list[Step]) -> None:
        if self._open is not None:
            self._open.status = status
            steps.append(Ended(self._open))
            self._open = None


def read_output(
    request_id: str, said: Iterable[Tokens], format: TextFormat | None, *, has_logprobs: bool = False
) -> Output:
    """What a request has said so far."""
    output = Output(request_id, format, has_logprobs=has_logprobs)
    num_tokens = 0
    for frame in said:
        num_tokens += len(frame.ids)
        output.push(frame.text, frame.logprobs, num_tokens)
    return output
