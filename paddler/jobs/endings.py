"""The final frames of requests that end without an agent."""

from __future__ import annotations

from paddler.errors import AgentsLost, StartTimeout, frame_of
from paddler.wire.balancer import Finished, FinishReason, encode_frame

MAX_DEATHS = 3

CANCELLED_FRAME = encode_frame(Finished(FinishReason.CANCELLED))

START_TIMEOUT_FRAME = encode_frame(
    frame_of(
        StartTimeout(
            "no slot became free in time. Start more agents, or raise --buffered-request-timeout (X-Request-Timeout "
            "for one request)."
        )
    )
)

DEAD_FRAME = encode_frame(
    frame_of(
        AgentsLost(
            f"{MAX_DEATHS} agents were lost while working on this request, so it is not tried again: it may be "
            "what stops them. See the agents' logs."
        )
    )
)
