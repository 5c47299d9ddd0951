"""The objects of Paddler 4's management service, made of what Redis says of a pool."""

from __future__ import annotations

import msgspec

from api.management.objects import AgentIssue, AgentList, AgentObject, BufferedRequests, ModelIssue
from paddler.issues import Issue
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
        "issues": [_issue(issue) for issue in lane.issues],
        "state_application_status": _STATUSES.get(lane.state, "Fresh"),
        "uses_chat_template_override": False,
    }


def _issue(issue: Issue) -> AgentIssue:
    """Its kind with what Paddler 4 says of that, and `error` in any case. Clients know Paddler 4's kinds alone, and one
    of them refuses the whole list for another: what is ours has the one that keeps the words."""
    model: ModelIssue = {"model_path": issue.model_path, "error": issue.detail}
    if issue.kind == "ModelFileDoesNotExist":
        return {"ModelFileDoesNotExist": model}
    if issue.kind == "ModelCannotBeLoaded":
        return {"ModelCannotBeLoaded": model}
    return {"SlotCannotStart": {"error": issue.detail, "slot_index": 0}}
