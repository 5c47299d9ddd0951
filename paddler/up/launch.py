"""Start a command that cannot outlive its starter: `python -I -S launch.py PARENT_PID SIGNAL command...`.

On Linux the kernel sends SIGNAL when the starter dies in whatever way, SIGKILL included, so no child is orphaned
(`PR_SET_PDEATHSIG`; it survives the exec). Elsewhere the command is just executed: there a killed `paddler up` leaves
its children to be stopped by hand.

A shim, because code between fork and exec (`preexec_fn`) would run Python in a forked copy of a process with threads.
It is run as a file with `-I -S`, so that it costs 20 ms and imports nothing of Paddler.
"""

import os
import sys

PR_SET_PDEATHSIG = 1
EX_OSERR = 71
CANNOT_EXECUTE = 126


def main(arguments: list[str]) -> None:
    """Does not return. Exits with 126 when the command cannot be executed."""
    parent, death_signal, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
            sys.exit(EX_OSERR)
        # The parent may have died before the prctl, whose signal then never comes.
        if os.getppid() != parent:
            sys.exit(EX_OSERR)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"cannot execute {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(sys.argv[1:])
