"""Threads for what takes longer than a step may; the results are futures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Calls are begun in their order, and with one thread made one after the other; what was cancelled before its turn
    is not made. A call that hangs does not keep the process from ending."""

    def __init__(self, name: str, num_threads: int = 1) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._name = name
        self._threads: list[threading.Thread] = []
        for _ in range(num_threads):
            self.grow()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def grow(self) -> None:
        """One thread more, as one of them hangs."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._run, name=self._name, daemon=True))
        self._threads[-1].start()

    def shrink(self) -> None:
        """One less, when it has made the calls that are waiting."""
        self._calls.put(None)

    def stop(self, timeout_s: float) -> bool:
        """Make no more calls. Whether none is under way any more."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del item, future, call  # else an idle thread would keep the last image
