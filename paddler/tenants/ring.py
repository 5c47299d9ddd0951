"""The API keys as a balancer knows them: all in memory, read anew when one has changed.

A request costs no round trip. Every `POLL_S` the name of the last change is read, so that a key which is revoked
anywhere is refused everywhere within a second. A key that nobody here knows may have been made a moment ago, so the
name is read once more before that is said. While Redis is away what was known last holds: nothing could be
submitted anyway.
"""

from __future__ import annotations

import asyncio
import contextlib

from paddler.clock import Clock
from paddler.errors import QueueUnavailable, Unauthorized
from paddler.logs import get_logger
from paddler.store.client import TROUBLE
from paddler.tenants.credentials import is_same, read_presented
from paddler.tenants.keys import ApiKeys
from paddler.tenants.records import ApiKey

POLL_S = 0.5
PATIENCE_S = 3.0
READ_S = 5.0
LOOK_AGAIN_S = 0.1
"""Between two looks for keys that are not known: who guesses keys waits for that, and Redis hears no more of it."""

log = get_logger(__name__)

NO_KEY = "Send an API key, as `Authorization: Bearer <key>` or `x-api-key: <key>`; `paddler keys create` makes one."
UNKNOWN = "This API key is not known; `paddler keys list` has those there are."


class KeyRing:
    def __init__(self, keys: ApiKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._is_required = False
        self._known: dict[str, ApiKey] = {}
        self._version: bytes | None = None
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._is_loaded = asyncio.Event()
        self._has_keys = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Everybody may do everything: there is no key, and none is required."""
        return self._version is not None and not self._known and not self._is_required

    def require(self) -> None:
        """Nobody may do without a key from now on, even while there is none at all."""
        self._is_required = True

    async def wait_loaded(self) -> None:
        """Until keys have been read once. Raises `QueueUnavailable` after a few seconds without Redis."""
        if self._version is not None:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._is_loaded.wait()
        except TimeoutError:
            raise QueueUnavailable("Redis cannot be reached, which has the API keys.", retry_after_s=1) from None

    async def look_again(self, presented: str | None) -> None:
        """Read the keys anew if this is one that is not known."""
        read = read_presented(presented) if presented else None
        asked_at = self._clock.monotonic()
        if read is None or read.key_id in self._known:
            return
        async with self._looking:
            if self._looked_at >= asked_at:
                return
            await self._clock.sleep(max(self._looked_at + LOOK_AGAIN_S - self._clock.monotonic(), 0))
            self._looked_at = self._clock.monotonic()
            with contextlib.suppress(*TROUBLE, TimeoutError):
                await self.refresh_once()

    def find(self, presented: str | None) -> ApiKey:
        """The key that a client has sent. Raises `Unauthorized`, which tells why only to who has the secret."""
        if not presented:
            raise Unauthorized(NO_KEY)
        read = read_presented(presented)
        known = self._known.get(read.key_id) if read is not None else None
        if read is None or known is None:
            raise Unauthorized(UNKNOWN)
        now_ms = self._clock.wall() * 1000
        # Both are compared, whatever the first says.
        is_present = is_same(read.secret_hash, known.secret_hash)
        is_old = is_same(read.secret_hash, known.old_hash) and now_ms < known.old_until_ms
        if not (is_present or is_old):
            raise Unauthorized(UNKNOWN)
        self._check(known, now_ms)
        return known

    def renewed(self, key: ApiKey) -> ApiKey:
        """A key that was found before, as it is now. Raises `Unauthorized` if it is no longer good."""
        return self.of_id(key.id)

    def of_id(self, key_id: str) -> ApiKey:
        """The key of this id, for who has shown its secret before. Raises `Unauthorized` if it is no longer good."""
        known = self._known.get(key_id)
        if known is None:
            raise Unauthorized(UNKNOWN)
        self._check(known, self._clock.wall() * 1000)
        return known

    def _check(self, key: ApiKey, now_ms: float) -> None:
        if key.revoked_ms is not None:
            raise Unauthorized("This API key was revoked.")
        if not key.is_valid(now_ms):
            raise Unauthorized("This API key has expired.")

    async def refresh_once(self) -> None:
        """Raises what Redis raises."""
        async with asyncio.timeout(READ_S):
            if self._version is not None and await self._keys.version() == self._version:
                return
            self._version, self._known = await self._keys.snapshot()
        self._is_loaded.set()
        if self._known:
            self._has_keys.set()

    async def wait_for_keys(self) -> None:
        """Until there was a key."""
        await self._has_keys.wait()

    async def watch_loop(self) -> None:
        """Never returns."""
        while True:
            try:
                await self.refresh_once()
            except TROUBLE as error:
                log.debug("cannot read the API keys", error=str(error))
            except Exception as error:
                # A record that this version cannot read: what was known holds.
                log.error("cannot read the API keys", exc_info=error)
            await self._clock.sleep(POLL_S)
