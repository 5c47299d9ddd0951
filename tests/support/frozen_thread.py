"""One thread of a child process, stopped where it is while the others go on: what a hang in native code looks like."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from paddler.testing.waiting import wait_until

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17  # PTRACE_*
_ALL_KINDS = 0x40000000  # __WALL: threads that are no children of ours, but traced
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


async def busiest_thread(pid: int) -> int:
    """The id of the one, beside the main thread, that computes now."""
    before = _ticks(pid)

    def found() -> int:
        spent = {tid: ticks - before.get(tid, 0) for tid, ticks in _ticks(pid).items() if tid != pid}
        most = max(spent, key=spent.__getitem__)
        return most if spent[most] > 20 else 0

    return await wait_until(found, timeout_s=60, poll_s=0.02, what="a thread of it computes")


class FrozenThread:
    """Linux. All of it is called by one thread, as the kernel wants it of a tracer."""

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._ask(_SEIZE)
        self._ask(_INTERRUPT)

    def thaw(self) -> None:
        os.waitpid(self._tid, _ALL_KINDS)  # it has stopped
        self._ask(_DETACH)

    def bury(self) -> None:
        """Its process cannot be waited for before this."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._tid, _ALL_KINDS | os.WNOHANG)

    def _ask(self, what: int) -> None:
        if _libc.ptrace(what, self._tid, None, None):
            error = ctypes.get_errno()
            raise OSError(error, f"ptrace: {os.strerror(error)}")


def _ticks(pid: int) -> dict[int, int]:
    """Of the processor, by thread."""
    found: dict[int, int] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[int(task.name)] = int(fields[11]) + int(fields[12])
    return found
