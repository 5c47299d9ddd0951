"""The objects of the desired state's history, as types. `updated_ms` is since the epoch."""

from __future__ import annotations

from typing import TypedDict

from paddler.desired.schema import BalancerDesiredState


class StateVersion(TypedDict):
    version: int
    updated_ms: int
    author: str


class StateHistory(TypedDict):
    """The newest first; `version` 0 of `current` is a state that nobody has set."""

    current: int
    history: list[StateVersion]


class WholeVersion(TypedDict):
    version: int
    updated_ms: int
    author: str
    balancer_desired_state: BalancerDesiredState
