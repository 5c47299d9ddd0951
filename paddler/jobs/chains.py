"""Prefix chains as Redis has them: hashes as text, ends in estimated tokens."""

from __future__ import annotations

import base64
import struct

from paddler.routing.prefix import PrefixChain

HASH_CHARACTERS = 11


def hash_text(digest: bytes) -> str:
    """8 bytes as 11 characters of URL-safe base64: part of the name of a key, the same in agents and balancers."""
    return base64.urlsafe_b64encode(digest)[:HASH_CHARACTERS].decode()


def pack_chain(chain: PrefixChain, bytes_per_token: float) -> bytes:
    """15 bytes an entry, shallow first: the hash as text, then the prompt tokens it covers as `>I`."""
    return b"".join(
        hash_text(digest).encode() + struct.pack(">I", tokens) for digest, tokens in chain.in_tokens(bytes_per_token)
    )


def estimate_tokens(num_bytes: int, bytes_per_token: float) -> int:
    """Tokens of a prompt of that many bytes, at least 1."""
    return max(1, int(num_bytes / bytes_per_token))
