"""What `paddler up` shows: its own words and the output of its children, one line at a time, on one stream.

On a console every line says whose it is: `balancer | ...`. As JSON every line is a record: a child's own records
pass as they are, anything else it prints becomes the `event` of a record.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import TextIO

from rich.style import Style

from paddler.logs import get_logger

MAX_LINE_BYTES = 64 * 1024
NUM_LAST_LINES = 15
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")


class Output:
    """Where lines go. A stream that is gone (the terminal was closed) is written to no more, so that stopping the
    children goes on."""

    def __init__(self, stream: TextIO, *, is_json: bool, names: list[str]) -> None:
        self._stream = stream
        self._is_json = is_json
        self._is_coloured = stream.isatty()
        self._width = max(map(len, [*names, "up"]))
        self._colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
        self._is_broken = False
        self._log = get_logger("paddler.up")

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Our own words; several lines are allowed."""
        if self._is_json:
            (self._log.error if is_error else self._log.info)(text)
            return
        for line in text.splitlines():
            self._write(self._prefixed("up", line, "bold red" if is_error else "bold"))

    def show(self, name: str, line: str) -> None:
        """A line of a child's output."""
        if not self._is_json:
            self._write(self._prefixed(name, line, self._colours.get(name, "")))
        elif line.startswith("{"):
            self._write(line)
        else:
            self._log.info(line, child=name)

    def print(self, text: str) -> None:
        """Text for the person in front: to stdout, unprefixed, so that a command in it can be pasted."""
        with contextlib.suppress(OSError, ValueError):
            print(text, flush=True)

    def _prefixed(self, name: str, line: str, style: str) -> str:
        label = f"{name:<{self._width}} |"
        return f"{Style.parse(style).render(label) if self._is_coloured else label} {line}"

    def _write(self, line: str) -> None:
        if self._is_broken:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._is_broken = True


class LineReader:
    """Cuts a child's output into lines, keeps the last few, and hands on those that are not hidden."""

    def __init__(self, show: Callable[[str], None], hidden: tuple[str, ...] = ()) -> None:
        self._show = show
        self._hidden = hidden
        self._rest = b""
        self.last_lines: deque[str] = deque(maxlen=NUM_LAST_LINES)

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:  # a child that never ends its line must not fill our memory
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._take(line)

    def close(self) -> None:
        if self._rest:
            self._take(self._rest)
            self._rest = b""

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        if any(part in text for part in self._hidden):
            return
        self.last_lines.append(text)
        self._show(text)
