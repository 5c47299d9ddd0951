"""Prefix chains as Redis has them: hashes as text, ends in estimated tokens."""

from __future__ import annotations

import base64
import struct

from paddler.routing.prefix import PrefixChain, prefix_chain
from paddler.wire.agent import Embed, Generate, Payload, Rerank

HASH_CHARACTERS = 11
EXPECTED_OUTPUT_TOKENS = 256
MAX_EXPECTED_OUTPUT_TOKENS = 512


def chain_of(payload: Payload, pool: str) -> PrefixChain:
    """The chain of a request; an embedding has none, only a length, and a ranking the query with each document. A
    question has not even that: it computes nothing."""
    if isinstance(payload, Embed | Rerank):
        query = len(payload.query.encode("utf-8", "surrogatepass")) if isinstance(payload, Rerank) else 0
        return PrefixChain((), (), sum(query + len(text.encode("utf-8", "surrogatepass")) for text in payload.inputs))
    if not isinstance(payload, Generate):
        return PrefixChain((), (), 0)
    return prefix_chain(payload, pool=pool, tenant=payload.cache_scope or None)


def expected_output(payload: Payload) -> int:
    """How many tokens of output a request is charged for until its real number is known."""
    if not isinstance(payload, Generate):
        return 0
    if payload.max_tokens is None:
        return EXPECTED_OUTPUT_TOKENS
    return min(payload.max_tokens, MAX_EXPECTED_OUTPUT_TOKENS)


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
