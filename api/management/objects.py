"""The objects of the management service, as types."""

from __future__ import annotations

from typing import Literal, TypedDict

from api.management.issue_objects import AgentIssue


class AgentObject(TypedDict):
    id: str
    name: str | None
    desired_slots_total: int
    slots_total: int
    slots_processing: int
    model_path: str | None
    download_current: int
    download_total: int
    download_filename: None
    download_indeterminate: bool
    issues: list[AgentIssue]
    state_application_status: str
    uses_chat_template_override: bool


class AgentList(TypedDict):
    """By name."""

    agents: list[AgentObject]


class BufferedRequests(TypedDict):
    buffered_requests_current: int


class FleetHealth(TypedDict):
    status: Literal["ok", "no slot available"]
    slots_idle: int
    slots_processing: int
    requests_buffered: int
    agents: int


class HealthTrouble(TypedDict):
    status: Literal["error"]
    error_message: str
