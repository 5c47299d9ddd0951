"""A pytest plugin that names the test which leaves a connection open, and the place where that was opened:

    PYTHONPATH=tests/support .venv/bin/python -m pytest -p open_ends tests/http

Python tells of such a connection when it is collected as garbage, which may be in another test, on another event loop.
Here all that is opened is remembered, and what is still open when the teardown of its test is over ends the run with
an error. What wider fixtures open is looked at after the last test. `OPEN_ENDS=FILE` writes to a file (with `-n`).
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import traceback
import weakref
from asyncio.base_subprocess import BaseSubprocessTransport
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection

DEPTH = 14
NO_TEST = "before any test, or after all"

IS_OPEN: dict[type[Any], Callable[[Any], bool]] = {
    asyncio.StreamWriter: lambda writer: not writer.transport.is_closing(),
    BaseSubprocessTransport: lambda transport: not transport.is_closing(),
    AbstractConnection: lambda connection: connection.is_connected,
    socket.socket: lambda opened: opened.fileno() != -1,
}


class OpenEnds:
    """What is open, by where and when it was opened."""

    def __init__(self) -> None:
        self.now = NO_TEST
        self.scope_depth = 0
        self.left: list[str] = []
        self._born: dict[int, tuple[weakref.ref[Any], Callable[[Any], bool], str, str]] = {}

    def watch(self, kind: type[Any], is_open: Callable[[Any], bool]) -> None:
        begin: Callable[..., None] = kind.__init__
        end: Callable[[Any], None] = getattr(kind, "__del__", lambda _: None)

        def __init__(this: Any, *arguments: Any, **named: Any) -> None:
            begin(this, *arguments, **named)
            stack = "".join(traceback.format_list(traceback.extract_stack(limit=DEPTH)[:-1]))
            self._born[id(this)] = weakref.ref(this), is_open, self.now, stack

        def __del__(this: Any) -> None:
            born = self._born.pop(id(this), None)
            if born is not None and self._is_open(this, is_open):
                self._tell("was garbage while it was open", repr(this), *born[2:])
            end(this)

        kind.__init__ = __init__
        kind.__del__ = __del__

    def look(self, test: str | None) -> None:
        """What this test (None: whichever) has left."""
        for key, (reference, is_open, born_in, stack) in list(self._born.items()):
            if test is None or born_in == test:
                this = reference()
                if this is not None and self._is_open(this, is_open):
                    self._tell("is open", repr(this), born_in, stack)
                self._born.pop(key, None)

    def _is_open(self, this: Any, is_open: Callable[[Any], bool]) -> bool:
        try:
            return is_open(this)
        except AttributeError:  # it has never come to be
            return False

    def _tell(self, what: str, which: str, born_in: str, stack: str) -> None:
        told = f"{which}\n  of {born_in}\n  {what} in {self.now}; opened at\n{stack}"
        self.left.append(told)
        if path := os.environ.get("OPEN_ENDS"):
            with Path(path).open("a") as file:
                file.write(f"{told}\n{'-' * 100}\n")


ends = OpenEnds()


def pytest_configure() -> None:
    for kind, is_open in IS_OPEN.items():
        ends.watch(kind, is_open)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    """Wider fixtures outlive the test that happens to ask first."""
    before = ends.now
    if fixturedef.scope != "function":
        ends.now = f"the fixture {fixturedef.argname} ({fixturedef.scope})"
    try:
        return (yield)
    finally:
        ends.now = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    ends.now = item.nodeid
    try:
        return (yield)
    finally:
        gc.collect()
        ends.look(item.nodeid)
        ends.now = NO_TEST


def pytest_sessionfinish(session: pytest.Session) -> None:
    gc.collect()
    ends.look(None)
    if ends.left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\n\n{len(ends.left)} are left open:\n", *ends.left, sep="\n", file=sys.stderr)
