"""The objects of Paddler 4's management service, made of what Redis says of a pool."""

from __future__ import annotations

import msgspec

from api.management.issue_objects import issue_object
from api.management.objects import AgentList, AgentObject, BufferedRequests
from paddler.jobs.overview import Lane, PoolQueue

_STATUSES = {"ready": "Applied", "leaving": "Applied", "loading": "Fresh", "failed": "AttemptedAndRetrying"}

_encode = msgspec.json.Encoder().encode


def agents_object(pool: PoolQueue) -> bytes:
    """`{"agents": [...]}`, by name."""
    agents: AgentList = {"agents": [_agent(lane) for lane in pool.lanes]}
    return _encode(agents)


def buffered_object(pool: PoolQueue) -> bytes:
    buffered: BufferedRequests = {"buffered_requests_current": sum(pool.waiting.values())}
    return _encode(buffered)


def num_slots(pool: PoolQueue) -> tuple[int, int]:
    """All that there are, and how many of them are busy."""
    return sum(lane.slots for lane in pool.lanes), sum(min(lane.requests, lane.slots) for lane in pool.lanes)


def metrics_text(pool: PoolQueue) -> str:
    """Prometheus' text format."""
    total, processing = num_slots(pool)
    gauges = {
        "slots_processing": (processing, "Slots that a request has been given to."),
        "slots_total": (total, "Slots of all agents."),
        "requests_buffered": (sum(pool.waiting.values()), "Requests that wait for a slot."),
    }
    lines: list[str] = []
    for name, (value, what) in gauges.items():
        lines += [f"# HELP paddler_{name} {what}", f"# TYPE paddler_{name} gauge", f"paddler_{name} {value}"]
    return "\n".join([*lines, ""])


def _agent(lane: Lane) -> AgentObject:
    return {
        "id": lane.agent,
        "name": lane.name or None,
        "desired_slots_total": lane.desired_slots,
        "slots_total": lane.slots,
        "slots_processing": min(lane.requests, lane.slots),
        "model_path": lane.model_path or lane.model or None,
        "download_current": 0,
        "download_total": 0,
        "download_filename": None,
        "download_indeterminate": False,
        "issues": [issue_object(issue) for issue in lane.issues],
        "state_application_status": _STATUSES.get(lane.state, "Fresh"),
        "uses_chat_template_override": False,
    }
