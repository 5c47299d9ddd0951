"""What an autoscaler's decisions come to."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Start(Struct, frozen=True):
    name: str


class Stop(Struct, frozen=True):
    """It has no requests and gets none, or has never been in the pool."""

    name: str


class Drain(Struct, frozen=True):
    agent_id: str


class Undrain(Struct, frozen=True):
    agent_id: str


class Say(Struct, frozen=True):
    event: str
    fields: Mapping[str, object] = {}
    is_problem: bool = False


Effect = Start | Stop | Drain | Undrain | Say
