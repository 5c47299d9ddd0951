"""The end of a job that cannot be done."""

from __future__ import annotations

import structlog

from paddler.engine import Job, Rejected
from paddler.errors import EngineFailed, PaddlerError
from paddler.wire.balancer import Usage

log = structlog.get_logger(__name__)


def rejected(job: Job, failure: Exception, usage: Usage | None = None) -> Rejected:
    """Whatever went wrong with one job must not take the agent, and so the other jobs, with it: what is no
    `PaddlerError` is a fault of ours, and goes to the log. `usage` None: only what earlier attempts have said."""
    if isinstance(failure, PaddlerError):
        error = failure
    else:
        log.error("cannot prepare a job", request=job.request_id, exc_info=failure)
        error = EngineFailed(f"the engine cannot prepare this request ({type(failure).__name__})")
    return Rejected(job.request_id, error.code, error.message, error.status, error.param, usage or job.earlier_usage)
