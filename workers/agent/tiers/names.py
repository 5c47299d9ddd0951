"""Names of blocks: what two agents of a fleet call the same state, and nobody else can guess.

A name is a keyed BLAKE2b over everything that the state depends on: the fingerprint of what computes it, the scope (a
tenant), and all tokens up to the end of the block, in a chain. Who does not know the fleet's secret cannot tell from a
name what was said, nor make the name of what somebody may have said.
"""

from __future__ import annotations

import hashlib

import numpy as np

from workers.agent.tokens import TokenArray

NAME_SIZE = 16
"""Bytes."""


def root_name(secret: bytes, fingerprint: str, scope: str) -> bytes:
    """That of no tokens: what the first block follows. `secret` has at most 64 bytes."""
    said = f"{len(fingerprint)}:{fingerprint}{scope}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, key=secret, digest_size=NAME_SIZE, person=b"root").digest()


def next_name(secret: bytes, above: bytes, tokens: TokenArray) -> bytes:
    """That of a block with these tokens behind the one named `above`."""
    said = above + tokens.astype("<i4", copy=False).tobytes()
    return hashlib.blake2b(said, key=secret, digest_size=NAME_SIZE, person=b"block").digest()


def place_of(request_id: str) -> TokenArray:
    """What in a chain of names leads to the tail of this request alone, which no other replaces; no tokens of a model
    are these."""
    said = request_id.encode("utf-8", "surrogatepass")
    return np.frombuffer(said + bytes(-len(said) % 4), "<i4").astype(np.int32) | np.int32(-(1 << 31))


def tail_name(secret: bytes, above: bytes) -> bytes:
    """Where the newest incomplete block behind `above` is kept: its own name cannot be known before its length is."""
    return hashlib.blake2b(above, key=secret, digest_size=NAME_SIZE, person=b"tail").digest()
