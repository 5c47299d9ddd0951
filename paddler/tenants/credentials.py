"""API keys as their holders have them: `pd-<id>-<secret>`.

The secret is 32 random bytes, so one round of SHA-256 is all that its hash needs: hashes of passwords are slow on
purpose because people choose what can be guessed, and one of 2^256 cannot be. It also has to be done for every request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from msgspec import Struct

PREFIX = "pd"
_FORM = re.compile(r"pd-(?P<id>[0-9a-f]{12})-(?P<secret>[A-Za-z0-9_-]{43})")
_NO_HASH = bytes(32)


class Presented(Struct, frozen=True):
    """What a client has sent, of the right form."""

    key_id: str
    secret_hash: bytes


def new_key_id() -> str:
    return secrets.token_hex(6)


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def whole_key(key_id: str, secret: str) -> str:
    """What is shown once."""
    return f"{PREFIX}-{key_id}-{secret}"


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def read_presented(text: str) -> Presented | None:
    """None for what has not the form of a key."""
    found = _FORM.fullmatch(text)
    return None if found is None else Presented(found["id"], hash_secret(found["secret"]))


def is_same(presented: bytes, stored: bytes) -> bool:
    """Compares in constant time; nothing equals an empty hash."""
    return hmac.compare_digest(presented, stored or _NO_HASH) and bool(stored)
