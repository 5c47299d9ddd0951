"""The objects of Paddler 4's management service, made of what Redis says of a pool."""

from __future__ import annotations

import msgspec

from api.management.issue_objects import issue_object
from api.management.objects import AgentList, AgentObject, BufferedRequests, TierObject
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import PoolQueue
from paddler.tier_stats import TierStats, counts_of

_STATUSES = {"loading": "Fresh", "?": "Fresh", "failed": "AttemptedAndRetrying"}
"""Of an agent that tells none of its own: any other serves what it should."""

_encode = msgspec.json.Encoder().encode


def agents_object(pool: PoolQueue) -> bytes:
    """`{"agents": [...]}`, by name, without what is another at every reading: for streams, which tell changes."""
    agents: AgentList = {"agents": [agent_object(lane) for lane in pool.lanes]}
    return _encode(agents)


def agents_with_ages(pool: PoolQueue) -> bytes:
    """The same with `since_renewal_ms`."""
    agents: AgentList = {"agents": [agent_object(lane, lane.since_renewal_ms) for lane in pool.lanes]}
    return _encode(agents)


def buffered_object(pool: PoolQueue) -> bytes:
    buffered: BufferedRequests = {"buffered_requests_current": sum(pool.waiting.values())}
    return _encode(buffered)


def num_slots(pool: PoolQueue) -> tuple[int, int]:
    """All that there are, and how many of them are busy."""
    return sum(lane.slots for lane in pool.lanes), sum(min(lane.requests, lane.slots) for lane in pool.lanes)


def num_idle(pool: PoolQueue) -> int:
    """Slots that a request could be given to now."""
    return sum(lane.num_idle for lane in pool.lanes)


def agent_object(lane: Lane, since_renewal_ms: int | None = None) -> AgentObject:
    download = lane.download
    return {
        "id": lane.agent,
        "name": lane.name or None,
        "desired_slots_total": lane.desired_slots,
        "slots_total": lane.slots,
        "slots_processing": min(lane.requests, lane.slots),
        "model_path": lane.model_path or lane.model or None,
        "download_current": download.current,
        "download_total": download.total,
        "download_filename": download.filename,
        "download_indeterminate": download.is_indeterminate,
        "issues": [issue_object(issue) for issue in lane.issues],
        "state_application_status": lane.state_application_status or _STATUSES.get(lane.state, "Applied"),
        "uses_chat_template_override": lane.uses_chat_template_override,
        "state": "lost" if lane.is_lost else lane.state,
        "is_draining": lane.is_draining,
        "phase": lane.phase if lane.state == "loading" else None,
        "progress": lane.progress if lane.state == "loading" else None,
        "model": lane.model or None,
        "desired_version": lane.desired_version,
        "context_size": lane.context_size or None,
        "tokens_per_second": _significant(lane.rate),
        "prefill_tokens_per_second": _significant(lane.prefill),
        "cache_hit_ratio": _significant(lane.cache_hit_ratio),
        "saved_tokens": lane.saved_tokens,
        "saved_bytes": lane.saved_bytes,
        "restored_tokens": lane.restored_tokens,
        "held_sequences": lane.held_sequences,
        "held_tokens": lane.held_tokens,
        "max_parked": lane.max_parked,
        "tiers": [_tier_object(one) for one in lane.tiers],
        "version": lane.version or None,
        "build": lane.build or None,
        "host": lane.host or None,
        "pid": lane.pid or None,
        "issue_details": [
            {"kind": one.kind, "detail": one.detail, "action": one.action, "remedy": one.remedy} for one in lane.issues
        ],
        "since_renewal_ms": since_renewal_ms,
    }


def _tier_object(one: TierStats) -> TierObject:
    counts = counts_of(one)
    return {
        "tier": one.tier,
        "hits": counts["hits"],
        "misses": counts["misses"],
        "tokens": counts["tokens"],
        "saved_ms": counts["saved_ms"],
        "refused": counts["refused"],
        "failures": counts["failures"],
        "bytes": one.num_bytes,
        "blocks": one.num_blocks,
        "bytes_per_second": _significant(one.bytes_per_s or None),
    }


def _significant(value: float | None) -> float | None:
    """Three figures: a stream of snapshots must not tell every tremor of an average."""
    return None if value is None else float(f"{value:.3g}")
