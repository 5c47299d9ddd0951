"""How many threads compute: fewer while others want the cores.

All threads meet at a barrier a few hundred times a decode, so one that waits for its core holds up the rest. Beside a
busy process on two cores, two threads of SmolLM2 fall from 105 tokens/s to 28, one has 50; and two agents that share
two cores are better off with a thread each than with four that hinder one another.

Linux tells how long each thread has been ready to run without running. Where it does not, the number stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

WINDOW_S = 0.25
"""Of computing, between two looks. One look reads a small file for each thread of the process: 0.1 ms."""
MAX_WAITING = 0.45
"""So many threads on average may wait for a core. Those that carry tokens to clients on the same cores cause 0.15 to
0.3; a busy neighbour of two threads on two cores 0.67."""
FIRST_PATIENCE_S = 1.0
MAX_PATIENCE_S = 32.0


def time_waited_s() -> float | None:
    """Seconds that the threads of this process have been ready to run, but not running, since each began; None where
    the system does not say (`/proc/<pid>/task/<tid>/schedstat`, the second number, ns)."""
    waited_ns = 0
    try:
        for thread in os.listdir("/proc/self/task"):
            # A thread may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                waited_ns += int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return waited_ns / 1e9


class Crew:
    """`set_size` is called with a new number of threads, between steps.

    It shrinks by as many as had to wait, and grows by one to try after a patience, which doubles while that is in
    vain."""

    def __init__(
        self,
        most: int,
        set_size: Callable[[int], None],
        waited_s: Callable[[], float | None] = time_waited_s,
    ) -> None:
        self.size = self._most = most
        self._set_size = set_size
        self._waited_s = waited_s
        self._last_s = waited_s() if most > 1 else None
        self._computed_s = 0.0
        self._since_change_s = 0.0
        self._patience_s = FIRST_PATIENCE_S
        self._is_trying = False

    def computed(self, seconds: float) -> None:
        """A step took so long."""
        if self._last_s is None:
            return
        self._computed_s += seconds
        if self._computed_s < WINDOW_S:
            return
        waited_s = self._waited_s()
        if waited_s is None:
            return
        waiting = (waited_s - self._last_s) / self._computed_s
        self._since_change_s += self._computed_s
        self._last_s, self._computed_s = waited_s, 0.0
        self._judge(waiting)

    def _judge(self, waiting: float) -> None:
        if waiting > MAX_WAITING and self.size > 1:
            self._patience_s = min(self._patience_s * 2, MAX_PATIENCE_S) if self._is_trying else FIRST_PATIENCE_S
            self._change(max(1, self.size - max(1, int(waiting))), is_trying=False)
        elif self._is_trying and self._since_change_s >= 4 * WINDOW_S:
            self._is_trying = False
            self._patience_s = FIRST_PATIENCE_S
        elif self.size < self._most and self._since_change_s >= self._patience_s:
            self._change(self.size + 1, is_trying=True)

    def _change(self, size: int, *, is_trying: bool) -> None:
        self.size = size
        self._is_trying = is_trying
        self._since_change_s = 0.0
        self._set_size(size)
