"""Waiting for a fact instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def wait_until(
    predicate: Callable[[], Any | Awaitable[Any]], *, timeout_s: float = 30.0, poll_s: float = 0.005, what: str = ""
) -> Any:
    """Poll until the predicate is true and return its value. Raises `AssertionError` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what or inspect.getsource(predicate).strip()}")
        await asyncio.sleep(poll_s)
