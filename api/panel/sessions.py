"""Who is logged in: a random id in a cookie of the browser, its SHA-256 in Redis, so that any balancer knows it and
nobody who reads Redis can use it. A session is worth what its key is worth: one that is revoked, has expired or was
rotated ends it.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec
from msgspec import Struct

from paddler.clock import Clock
from paddler.errors import Forbidden, Unauthorized
from paddler.store.client import Store
from paddler.store.panel_keys import SESSION_S, session_key
from paddler.tenants.credentials import is_same, read_presented
from paddler.tenants.records import ApiKey, Scope
from paddler.tenants.ring import KeyRing

SCOPE: Scope = "management"
ENDED = "This session has ended; log in again."
OLD_SECRET = "This API key has a new secret; log in with that."


class Session(Struct, frozen=True, kw_only=True):
    """`rotated_ms` is that of its key when it began."""

    key_id: str
    rotated_ms: int | None
    since_ms: int


_decoder = msgspec.json.Decoder(Session)


class Sessions:
    """Every method but `check` raises what Redis raises."""

    def __init__(self, store: Store, ring: KeyRing, clock: Clock) -> None:
        self._redis = store.redis
        self._prefix = store.prefix
        self._ring = ring
        self._clock = clock

    async def log_in(self, presented: str) -> tuple[str, ApiKey]:
        """The id of a new session and its key. Raises `Unauthorized`, `Forbidden`, `QueueUnavailable`."""
        await self._ring.wait_loaded()
        await self._ring.look_again(presented)
        key = check(self._ring.find(presented))
        read = read_presented(presented)
        if read is None or not is_same(read.secret_hash, key.secret_hash):
            # Good for a while yet; a session would outlast it.
            raise Unauthorized(OLD_SECRET)
        session_id = secrets.token_urlsafe(32)
        session = Session(key_id=key.id, rotated_ms=key.rotated_ms, since_ms=int(self._clock.wall() * 1000))
        await self._redis.set(self._key(session_id), msgspec.json.encode(session), ex=SESSION_S)
        return session_id, key

    async def key_of(self, session_id: str) -> ApiKey:
        """The key that it was begun with, as it is now; prolongs it. Raises `Unauthorized`, `Forbidden`."""
        where = self._key(session_id)
        pipe = self._redis.pipeline(transaction=False)
        pipe.get(where)
        pipe.expire(where, SESSION_S)
        found, _ = await pipe.execute()
        if found is None:
            raise Unauthorized(ENDED)
        try:
            session = _decoder.decode(found)
        except msgspec.MsgspecError:
            raise Unauthorized(ENDED) from None
        key = check(self._ring.of_id(session.key_id))
        if key.rotated_ms != session.rotated_ms:
            raise Unauthorized(ENDED)
        return key

    async def is_open(self, session_id: str) -> bool:
        """Prolongs it: who has a page open uses it."""
        try:
            await self.key_of(session_id)
        except (Unauthorized, Forbidden):
            return False
        return True

    def is_good(self, key: ApiKey) -> bool:
        """Whether a session that was begun with this key goes on, by what is in memory: no I/O."""
        try:
            return self._ring.of_id(key.id).rotated_ms == key.rotated_ms
        except Unauthorized:
            return False

    async def log_out(self, session_id: str) -> None:
        await self._redis.delete(self._key(session_id))

    def _key(self, session_id: str) -> str:
        return session_key(self._prefix, hashlib.sha256(session_id.encode()).hexdigest())


def check(key: ApiKey) -> ApiKey:
    """Raises `Forbidden` for a key that may not look after the fleet."""
    if SCOPE not in key.scopes:
        raise Forbidden(f"This API key has not the scope `{SCOPE}`, which the panel needs.", param=SCOPE)
    return key
