"""Ids that stand for images among tokens: negative, and the same only for the same pixels.

A hash in 31 bits would make two images one some day. So each image gets a number of its own, and a digest of its pixels
finds that number again. A digest that was forgotten gets a new number: then what was cached is computed again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from workers.agent.mtmd import Pixels

MAX_KNOWN = 4096
"""More than an agent can hold in its KV cache: each is a tile of an image that was of use lately."""
_FIRST = -2
"""-1 is llama.cpp's word for no token."""


class Identities:
    def __init__(self) -> None:
        self._known: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self._next = _FIRST

    def of(self, digest: bytes, tile: int) -> int:
        """The id of a tile of an image."""
        key = digest, tile
        if key not in self._known:
            self._known[key] = self._next
            self._next -= 1
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def digest_of(pixels: Pixels) -> bytes:
    """SHA-256 of an image as the model gets it."""
    hasher = hashlib.sha256(repr(pixels.shape).encode())
    hasher.update(pixels.tobytes())
    return hasher.digest()
