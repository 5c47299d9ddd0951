"""What a worker must be told of the protocol that a batch's lines are written in.

A line is read by the code that reads an HTTP request of the same route, and its answer rendered likewise, which is in
`api`; `api` and `workers` do not import each other. So a worker loads a `LineFormat` by its entry point
(`[project.entry-points."paddler.batch_lines"]`), as the command line loads its commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from typing import Protocol

from msgspec import Struct

from paddler.errors import PaddlerError
from paddler.jobs.heard import Answer
from paddler.wire.agent import Payload

ENTRY_POINTS = "paddler.batch_lines"


class LineProblem(Exception):
    """A line cannot be run. `code` and `param` are for programs."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class LineRequest(Struct, frozen=True):
    """A request of the queue, and the label it is submitted with."""

    payload: Payload
    label: bytes


class LineCall(Struct, frozen=True):
    """A checked line: the requests that answer it together, and what makes a JSON body of their answers."""

    custom_id: str
    model: str
    requests: Sequence[LineRequest]
    render: Callable[[Sequence[Answer]], Iterable[bytes]]


class LineFormat(Protocol):
    """Each result of the last three is a whole line of an output or error file."""

    async def read(self, line: bytes, endpoint: str, *, seed: int, created: int) -> LineCall:
        """`seed` serves bodies that name none. Raises `LineProblem`."""
        ...

    def custom_id(self, line: bytes) -> str:
        """Of a line that has been read before."""
        ...

    def answered(self, line_id: str, custom_id: str, request_id: str, body: Iterable[bytes]) -> bytes: ...

    def refused(self, line_id: str, custom_id: str, request_id: str | None, error: PaddlerError) -> bytes:
        """It was run, or refused by the queue, with the HTTP status of `error`."""
        ...

    def not_run(self, line_id: str, custom_id: str, code: str, message: str) -> bytes: ...


def load_format(name: str = "openai") -> LineFormat:
    """Raises `LookupError` when this installation has none of that name."""
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
        return entry.load()
    raise LookupError(f"no package is installed that reads {name!r} lines")
