"""What `Front` and `KeepaliveReader` add to every route, as `/openapi.json` tells it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from api.access.operation import ERRORS
from api.keepalive import Keepalive
from api.openai.objects import ErrorAnswer
from api.operation import Around, Parameter
from paddler.errors import InvalidField

# Not in every answer: where it refuses its own headers, what answers stands before it.
AROUND = Around(
    parameters=(
        Parameter(
            name="X-Request-Id",
            description="The client's own name for the request: 1 to 128 visible ASCII characters come back as "
            "they are, anything else is as none.",
        ),
        Parameter(
            name="X-SSE-Keepalive",
            type=Annotated[Any, Meta(extra_json_schema={"type": "string", "enum": [str(one) for one in Keepalive]})],
            description="What a stream says while it waits.",
        ),
    ),
    headers=(
        Parameter(
            name="x-request-id",
            description="`X-Request-Id` as it came, else the id in the queue, else one made for this answer.",
        ),
        Parameter(name="x-paddler-request-id", description="The request's id in the queue, for `/v1/requests/{id}`."),
        Parameter(
            name="openai-processing-ms",
            type=int,
            description="From the request's head to this one.",
        ),
    ),
    errors=(InvalidField, *ERRORS),
    error_body=ErrorAnswer,
)
