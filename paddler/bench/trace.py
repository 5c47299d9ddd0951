"""Traces in the form of Mooncake's (`github.com/kvcache-ai/Mooncake`, FAST25-release): JSON lines with

    {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}

`timestamp` in ms; each of `hash_ids` stands for a block of 512 tokens of the prompt, the last one for what is left, and
two prompts whose ids begin alike begin with the same tokens. AIPerf and Dynamo write and read the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from paddler.bench.texts import Texts
from paddler.bench.workload import Conversation, Turn

MAX_LENGTH = 10_000_000


class BadTrace(ValueError):
    """The message names the line and what is wrong with it, without its full stop."""


class Entry(Struct, frozen=True):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def read_trace(path: Path, max_entries: int | None = None) -> list[Entry]:
    """In the order of their timestamps, the first of which becomes 0. Raises `BadTrace` and `OSError`."""
    decoder = msgspec.json.Decoder(Entry)
    entries: list[Entry] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                entry = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise BadTrace(f"line {number} is no line of a Mooncake trace: {error}") from None
            if not 1 <= entry.input_length <= MAX_LENGTH or not 1 <= entry.output_length <= MAX_LENGTH:
                raise BadTrace(f"line {number}: input_length and output_length must be 1 to {MAX_LENGTH}")
            if not 0 <= entry.timestamp < 1e12:
                raise BadTrace(f"line {number}: timestamp must be milliseconds since the start of the trace")
            entries.append(entry)
    if not entries:
        raise BadTrace("it has no lines")
    entries.sort(key=lambda entry: entry.timestamp)
    start = entries[0].timestamp
    return [msgspec.structs.replace(entry, timestamp=entry.timestamp - start) for entry in entries[:max_entries]]


class Traced:
    """A request for each entry, a conversation of one turn: earlier ones are in its prompt, as they were recorded."""

    mean_turns = 1.0

    def __init__(self, entries: list[Entry], texts: Texts, block_size: int, cancel_rate: float) -> None:
        self._entries = entries
        self._texts = texts
        self._block_size = block_size
        self._cancel_rate = cancel_rate

    def conversation(self, number: int) -> Conversation | None:
        if number >= len(self._entries):
            return None
        entry = self._entries[number]
        is_left = self._texts.rng(f"cancel/{number}").random() < self._cancel_rate
        return Conversation(number, (Turn(self._prompt(number, entry), entry.output_length, is_left),))

    def _prompt(self, number: int, entry: Entry) -> str:
        left, parts = entry.input_length, list[str]()
        for hash_id in entry.hash_ids:
            if left <= 0:
                break
            parts.append(self._texts.shared(f"block/{hash_id}", min(self._block_size, left)))
            left -= self._block_size
        if left > 0:
            parts.append(self._texts.text(f"rest/{number}", left))
        return " ".join(parts)
