"""Blocks on a disk, kept over restarts, within a bound that all agents of a host keep together.

    <directory>/kv-1/              1: the format of `packing.py`
        lock, ledger               `ledger.py`
        ab/ab12...ef.kv            a packed block under its name, whole: it appears by a rename
        ab/ab12...ef.<random>.new  one being written, locked by its writer; its bytes are in the ledger already

Agents share the folder: what one has written the others read, as a name says all that a state depends on. Reading needs
no lock and no index, only the name. Each agent has an index of its own, made of the headers before its first write, for
what goes first (`worth.py`); what others have done since it finds out when the bound makes it look.

Nothing is synced to the disk: a block that a crash of the machine leaves cut off or empty is too short for its header
or does not open, and its tokens are computed. Waiting for the disk would cost every block, and the disk's other users.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from paddler.clock import Clock
from paddler.logs import get_logger
from workers.agent.fetch.cache import SPARE_BYTES, free_bytes
from workers.agent.tiers.contract import TierUnavailable
from workers.agent.tiers.ledger import Ledger
from workers.agent.tiers.packing import FORMAT, HEADER_SIZE, BadBlock, Header, read_header
from workers.agent.tiers.worth import Item, Worth

log = get_logger(__name__)

SLACK = 0.1
"""Where other agents write here as well, so much of the bound is freed at once: finding out what they have costs a look
at every file."""

PINNED_MODE = 0o100
"""The bit of a file's mode by which other agents know a pinned block."""
PIN_S = 86_400.0
"""For so long after it was pinned or of use: an operator may have unpinned it since."""

_NAME = re.compile(r"[0-9a-f]{32}\.kv")


class DiskTier:
    """Implements `contract.Tier`. What is pinned never makes room, until nobody has pinned or read it here for a day.
    When a block was last of use is remembered over restarts, by the time of its file; how often is not.

    A directory that cannot be used is a tier that fails: only `read`, `write` and `drop` raise."""

    name = "disk"

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        clock: Clock,
        *,
        spare_bytes: int = SPARE_BYTES,
        free_bytes: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._folder = directory / f"kv-{FORMAT}"
        self._max_bytes, self._spare_bytes = max_bytes, spare_bytes
        self._free_bytes = free_bytes
        self._clock = clock
        self._ledger = Ledger(self._folder)
        self._mutex = threading.Lock()
        self._alone = threading.Lock()
        """Of this agent's threads that change files; taken before `_mutex`, which nobody holds for long."""
        self._worth: Worth[bytes] = Worth()
        self._pins: dict[bytes, float] = {}
        """When they were pinned or of use, as far as this agent knows."""
        self._is_indexed, self._looked_at = False, 0.0

    @property
    def num_bytes(self) -> int:
        """Of the blocks that this agent knows of."""
        return self._worth.num_bytes

    @property
    def num_blocks(self) -> int:
        return len(self._worth)

    def index(self) -> None:
        """Find out what is there, if nobody has: a look at every file, which the first write would wait for."""
        if self._is_indexed:
            return
        try:
            with self._changing():
                pass
        except TierUnavailable as trouble:
            log.warning("states cannot be kept on disk now", directory=str(self._folder.parent), reason=str(trouble))

    def read(self, names: Sequence[bytes], *, peers: Sequence[str] = (), deadline_s: float) -> list[bytes]:
        del peers
        end = self._clock.monotonic() + deadline_s
        found: list[bytes] = []
        for name in names:
            if found and self._clock.monotonic() >= end:
                break
            try:
                found.append(self._path(name).read_bytes())
            except (FileNotFoundError, NotADirectoryError):
                with self._mutex:
                    self._forget(name)
                break
            except OSError as error:
                raise _unavailable("read", error) from error
            self._touch(name)
        return found

    def write(self, name: bytes, packed: bytes, *, num_tokens: int, is_pinned: bool = False) -> None:
        header = read_header(packed)
        assert header.num_tokens == num_tokens
        self.index()
        if not header.is_tail and self._is_here(name, is_pinned=is_pinned):
            return
        if len(packed) > self._max_bytes:
            log.debug("a block is larger than the whole disk tier", num_bytes=len(packed))
            return
        with self._changing():
            self._check_spare(len(packed))
            self._make_room(len(packed))
            draft, handle = self._draft(name, len(packed))
        try:
            try:
                _write_all(handle, packed)
            except OSError as error:
                with self._changing():
                    self._discard(draft, len(packed))
                raise _unavailable("write", error) from error
            with self._changing():
                self._install(draft, name, header, is_pinned=is_pinned)
        finally:
            os.close(handle)

    def drop(self, name: bytes) -> None:
        """What is under this name is no block of ours. Raises `TierUnavailable`."""
        with self._changing():
            self._remove(name)

    def close(self) -> None:
        """Everything is on its disk already."""

    def _path(self, name: bytes) -> Path:
        text = name.hex()
        return self._folder / text[:2] / f"{text}.kv"

    @contextlib.contextmanager
    def _changing(self) -> Generator[None]:
        """Alone among all threads and agents, with an index. The system's errors become `TierUnavailable`."""
        try:
            with self._alone:
                self._folder.mkdir(0o700, parents=True, exist_ok=True)
                with self._ledger.held():
                    if not self._is_indexed or self._ledger.read() is None:
                        self._look()
                        self._shrink(self._max_bytes)
                    yield
        except OSError as error:
            raise _unavailable("change", error) from error

    def _is_here(self, name: bytes, *, is_pinned: bool) -> bool:
        """And of use again."""
        with self._mutex:
            if name not in self._worth:
                return False
            if is_pinned and name not in self._pins:
                self._pins[name] = self._clock.wall()
                self._worth.add(replace(self._worth[name], is_pinned=True))
        if is_pinned:
            with contextlib.suppress(OSError):
                os.chmod(self._path(name), 0o600 | PINNED_MODE)
        return self._touch(name)

    def _touch(self, name: bytes) -> bool:
        """It was of use, if it is here."""
        now = self._clock.wall()
        try:
            os.utime(self._path(name), (now, now))
        except FileNotFoundError:
            with self._mutex:
                self._forget(name)
            return False
        except OSError:
            pass  # a disk that is read-only now
        with self._mutex:
            if name in self._worth:
                self._worth.use(name)
            if name in self._pins:
                self._pins[name] = now
        return True

    def _forget(self, name: bytes) -> None:
        self._pins.pop(name, None)
        if name in self._worth:
            self._worth.remove(name)

    def _check_spare(self, num_bytes: int) -> None:
        free = self._free_bytes(self._folder)
        if free - num_bytes < self._spare_bytes:
            raise TierUnavailable(
                f"the disk of {self._folder} has {free} bytes free, of which {self._spare_bytes} stay"
            )

    def _make_room(self, num_bytes: int) -> None:
        held = self._ledger.read()
        assert held is not None
        if held + num_bytes <= self._max_bytes:
            return
        self._let_go()
        slack = 0
        if self._ledger.is_changed:
            self._look()
            slack = int(self._max_bytes * SLACK)
        if not self._shrink(self._max_bytes - num_bytes, slack):
            raise TierUnavailable(f"{self._folder} is full of pinned blocks: {self._max_bytes} bytes")

    def _let_go(self) -> None:
        """Of what was pinned a while ago. Other agents may have used it since."""
        now = self._clock.wall()
        for name, at in list(self._pins.items()):
            if now - at < PIN_S:
                continue
            with contextlib.suppress(FileNotFoundError):
                at = self._path(name).stat().st_mtime
                if now - at >= PIN_S:
                    self._path(name).chmod(0o600)
            with self._mutex:
                if now - at < PIN_S:
                    self._pins[name] = at
                else:
                    self._pins.pop(name, None)
                    if name in self._worth:
                        self._worth.add(replace(self._worth[name], is_pinned=False))

    def _shrink(self, max_bytes: int, slack: int = 0) -> bool:
        """Remove what is worth the least until no more than that is there, or nothing but what is pinned; if anything
        has to go, `slack` more. Whether it is done."""
        left = self._ledger.read() or 0
        target = max_bytes if left <= max_bytes else max_bytes - slack
        while left > target:
            with self._mutex:
                name = self._worth.evict()
            if name is None:
                break
            self._unlink(name)
            left = self._ledger.read() or 0
        return left <= max_bytes

    def _remove(self, name: bytes) -> None:
        with self._mutex:
            self._forget(name)
        self._unlink(name)

    def _unlink(self, name: bytes) -> None:
        path = self._path(name)
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            self._ledger.add(-size)

    def _draft(self, name: bytes, size: int) -> tuple[Path, int]:
        """A file of its full size, without its content; the bytes are counted from here on."""
        path = self._path(name)
        path.parent.mkdir(0o700, exist_ok=True)
        draft = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.new")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        num_counted = 0
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._ledger.add(size)
            num_counted = size
            os.ftruncate(handle, size)
        except OSError:
            os.close(handle)
            self._discard(draft, num_counted)
            raise
        return draft, handle

    def _discard(self, draft: Path, num_counted: int) -> None:
        draft.unlink(missing_ok=True)
        self._ledger.add(-num_counted)

    def _install(self, draft: Path, name: bytes, header: Header, *, is_pinned: bool) -> None:
        path = self._path(name)
        with contextlib.suppress(FileNotFoundError):
            self._ledger.add(-path.stat().st_size)
        if is_pinned:
            draft.chmod(0o600 | PINNED_MODE)
        draft.replace(path)
        now = self._clock.wall()
        os.utime(path, (now, now))
        with self._mutex:
            if is_pinned:
                self._pins[name] = now
            else:
                self._pins.pop(name, None)
            self._worth.add(_item(name, header, is_pinned=is_pinned))

    def _look(self) -> None:
        """Bring index and ledger to what is there, and remove what is no block, or only half of one. Both are of
        earlier agents: whoever writes now holds a lock on his file."""
        found: dict[bytes, os.stat_result] = {}
        num_bytes = 0
        for entry in self._files():
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(".new") and not _is_left(entry.path):
                    num_bytes += status.st_size
                elif _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    found[bytes.fromhex(entry.name[:32])] = status
                else:
                    os.unlink(entry.path)
        now = self._clock.wall()
        new: list[Item[bytes]] = []
        for name, status in sorted(found.items(), key=lambda pair: pair[1].st_mtime):
            is_pinned = status.st_mode & PINNED_MODE != 0 and now - status.st_mtime < PIN_S
            with self._mutex:
                if is_pinned:
                    self._pins[name] = status.st_mtime
                else:
                    self._pins.pop(name, None)
                if name in self._worth:
                    if is_pinned != self._worth[name].is_pinned:
                        self._worth.add(replace(self._worth[name], is_pinned=is_pinned))
                    elif status.st_mtime > self._looked_at:
                        self._worth.use(name)
                    continue
            item = self._read_item(name, status.st_size, is_pinned=is_pinned)
            if item is None:
                del found[name]
            else:
                new.append(item)
        with self._mutex:
            for name in [name for name in self._worth if name not in found]:
                self._forget(name)
            self._worth.restore(new)
        self._ledger.count(num_bytes + sum(status.st_size for status in found.values()))
        self._is_indexed, self._looked_at = True, now

    def _files(self) -> Iterator[os.DirEntry[str]]:
        for number in range(256):
            with contextlib.suppress(FileNotFoundError), os.scandir(self._folder / f"{number:02x}") as entries:
                yield from list(entries)

    def _read_item(self, name: bytes, size: int, *, is_pinned: bool) -> Item[bytes] | None:
        """None for what is no block, which is removed."""
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                header = read_header(file.read(HEADER_SIZE))
            if header.num_bytes == size:
                return _item(name, header, is_pinned=is_pinned)
        except FileNotFoundError:
            return None
        except BadBlock as bad:
            log.debug("a file was no block", path=str(path), reason=str(bad))
        path.unlink(missing_ok=True)
        return None


def _item(name: bytes, header: Header, *, is_pinned: bool) -> Item[bytes]:
    return Item(name, header.above, header.num_bytes, header.prefill_s, is_pinned)


def _is_left(path: str) -> bool:
    """Whether nobody writes this file any more."""
    handle = os.open(path, os.O_WRONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _write_all(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _unavailable(what: str, error: OSError) -> TierUnavailable:
    return TierUnavailable(f"cannot {what} {error.filename or 'a block'}: {error.strerror or error}")
