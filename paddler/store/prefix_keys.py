"""The keys of pinned prefixes, below a pool's `base`. `pin_prefix.lua` and `unpin_prefix.lua` repeat the suffixes."""

from __future__ import annotations


def prefixes_key(base: str) -> str:
    """hash · name -> version, digest and record (JSON, `paddler.prefixes.records`) with spaces between, and under the
    empty name the last version given · pin_prefix and unpin_prefix write, agents, balancers and `paddler prefixes` read
    · no TTL · at most `MAX_PREFIXES`."""
    return f"{base}:prefixes"


def contents_key(base: str) -> str:
    """hash · name -> what the prefix is (`wire.agent.Generate`) · with `prefixes` · no TTL · at most `MAX_BYTES`."""
    return f"{base}:prefixes:contents"


def hits_key(base: str) -> str:
    """hash · name -> requests that began with it and did not compute it · agents count, balancers read, pin_prefix and
    unpin_prefix delete · no TTL · a field a prefix."""
    return f"{base}:prefixes:hits"


def turn_key(base: str, name: str) -> str:
    """string · who computes a prefix for all that share their tiers · agents, by `lead` · TTL the lease."""
    return f"{base}:prefixes:turn:{name}"


def prefixes_channel(base: str) -> str:
    """pub/sub channel · pin_prefix and unpin_prefix publish, agents listen."""
    return f"{base}:prefixes:changed"
