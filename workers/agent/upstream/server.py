"""What is known of a server since the agent has asked it."""

from __future__ import annotations

from msgspec import Struct

from paddler.wire.agent import Ability
from workers.agent.upstream.dialects import Dialect


class Server(Struct, frozen=True, kw_only=True):
    """`model` is what its requests are sent for, `name` what the agent calls it. `num_slots` is what the server has,
    None if it does not say; `context_size` tokens are for one request. `has_slots`: it shows which are busy."""

    dialect: Dialect
    model: str
    name: str
    num_slots: int | None
    context_size: int
    abilities: tuple[Ability, ...]
    has_slots: bool
    build: str
    paths: frozenset[str]
