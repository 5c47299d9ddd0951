"""The tier that a fleet shares: a Redis or Valkey of its own, which forgets what it has no room for.

Never the queue's server: that one must forget nothing, and this one is to forget. A block is a string under its name,
for a week from its last use on. Whatever goes wrong there (away, slow, full) is a `TierUnavailable` by the deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn

from redis.exceptions import RedisError

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.pipe import Value
from paddler.store.sync_connections import SyncConnections, TimeLeft
from workers.agent.saved_states import BLOCK
from workers.agent.tiers.contract import TierUnavailable
from workers.agent.tiers.restoring import RestoreSpeed

KEEP_S = 7 * 86_400
MAX_BLOCK_BYTES = 256 * 1024 * 1024
"""Of a model that needs half a megabyte a token a block has 134; Redis takes no value above 512."""
BATCH_BYTES = 16 * 1024 * 1024
"""What is asked for at a time, but for a single block that has more: so much a late answer costs at most."""
MAX_NAMES = 1024
CONNECT_S = 0.5
WRITE_S = 5.0
MAX_CONNECTIONS = 16

TROUBLE = (RedisError, OSError)

log = get_logger(__name__)


def key_of(name: bytes) -> str:
    return f"paddler:kv:{name.hex()}"


class SharedTier:
    """`queue_id` is the `run_id` of the queue's server, empty where that tells none."""

    name = "shared"

    def __init__(self, url: str, clock: Clock, *, queue_id: str, speed: RestoreSpeed) -> None:
        """Raises `ValueError` for a URL that cannot be."""
        self._connections = SyncConnections(url, timeout_s=CONNECT_S, max_connections=MAX_CONNECTIONS)
        self._clock = clock
        self._queue_id = queue_id
        self._is_looked_at = False
        self._is_queue = False
        self.is_well = False
        """The last thing that was asked of the store was done."""
        self._speed = speed

    def look(self, deadline_s: float = CONNECT_S) -> bool:
        """Whether this server may be used, from the first answer on: not if it is the queue's. Raises
        `TierUnavailable`."""
        if not self._is_looked_at:
            try:
                server = self._info("server", deadline_s)
                memory = self._info("memory", deadline_s)
            except TROUBLE as error:
                self._fails(error)
            self._is_queue = bool(self._queue_id) and server.get("run_id") == self._queue_id
            self._is_looked_at = True
            self.is_well = not self._is_queue
            _warn(memory)
        return not self._is_queue

    def read(self, names: Sequence[bytes], *, peers: Sequence[str], deadline_s: float) -> list[bytes]:
        del peers
        found: list[bytes] = []
        left = self._left(deadline_s)
        began = self._clock.monotonic()
        try:
            self._check(deadline_s)
            self._read(list(map(key_of, names[:MAX_NAMES])), found, left)
            self.is_well = True
        except TROUBLE as error:
            if not found:
                self._fails(error)
        self._speed.note(len(found), self._clock.monotonic() - began)
        return found

    def write(self, name: bytes, packed: bytes | bytearray, *, num_tokens: int, is_pinned: bool) -> None:
        del is_pinned  # whoever pins it writes it again when it is lost
        if len(packed) > MAX_BLOCK_BYTES:
            return
        left = self._left(WRITE_S)
        try:
            self._check(WRITE_S)
            # What is there already is of the same content, and may have 100 MB; but a tail has grown, and an empty
            # value is none.
            is_there = num_tokens >= BLOCK and self._connections.call("STRLEN", key_of(name), left=left)
            if is_there and self._connections.call("EXPIRE", key_of(name), KEEP_S, left=left):
                return
            self._connections.call("SET", key_of(name), bytes(packed), "EX", KEEP_S, left=left)
            self.is_well = True
        except TROUBLE as error:
            self._fails(error)

    def drop(self, name: bytes) -> None:
        """What is under this name does not open: the next who computes it writes it anew. Raises `TierUnavailable`."""
        try:
            self._check(WRITE_S)
            self._connections.call("UNLINK", key_of(name), left=self._left(WRITE_S))
            self.is_well = True
        except TROUBLE as error:
            self._fails(error)

    def close(self) -> None:
        self._connections.close()

    def _fails(self, error: BaseException) -> NoReturn:
        self.is_well = False
        raise TierUnavailable(f"{type(error).__name__}: {error}") from error

    def _check(self, deadline_s: float) -> None:
        if not self.look(deadline_s):
            raise TierUnavailable("--kv-url is the server of the queue, which must forget nothing")

    def _read(self, keys: list[str], found: list[bytes], left: TimeLeft) -> None:
        with self._connections.talk() as ask:
            sizes: list[int] = ask([("STRLEN", key) for key in keys], left)
            usable = next((at for at, size in enumerate(sizes) if not 0 < size <= MAX_BLOCK_BYTES), len(keys))
            for first, last in pairwise(_batches(sizes[:usable])):
                commands: list[tuple[Value, ...]] = [("GETEX", key, "EX", KEEP_S) for key in keys[first:last]]
                for packed in ask(commands, left):
                    if packed is None:  # gone since
                        return
                    found.append(packed)

    def _info(self, section: str, deadline_s: float) -> dict[str, str]:
        text: Any = self._connections.call("INFO", section, left=self._left(deadline_s))
        lines = text.decode("utf-8", "replace").splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines)}

    def _left(self, deadline_s: float) -> TimeLeft:
        return partial(_time_left, self._clock, self._clock.monotonic() + deadline_s)


def _time_left(clock: Clock, end: float) -> float:
    left = end - clock.monotonic()
    if left <= 0:
        raise TimeoutError("it took longer than it was given")
    return left


def _batches(sizes: Sequence[int]) -> list[int]:
    """Where batches begin, and where the last one ends."""
    bounds, total = [0], 0
    for at, size in enumerate(sizes):
        if at > bounds[-1] and total + size > BATCH_BYTES:
            bounds.append(at)
            total = 0
        total += size
    return bounds if len(sizes) == bounds[-1] else [*bounds, len(sizes)]


def _warn(memory: dict[str, str]) -> None:
    if memory.get("maxmemory") == "0":
        remedy = "set maxmemory, and maxmemory-policy allkeys-lru"
        log.warning("the server of --kv-url has no bound of memory: it grows until the machine has none", remedy=remedy)
    elif memory.get("maxmemory_policy") == "noeviction":
        remedy = "set maxmemory-policy allkeys-lru"
        log.warning("the server of --kv-url refuses what it has no room for, in place of forgetting", remedy=remedy)
