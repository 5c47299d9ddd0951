"""What the routes that ask one agent say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Any

from api.management.agent_objects import ModelMetadata, TemplateOverride
from api.openai.objects import ErrorAnswer
from api.operation import JSON, TEXT, Answer, Operation, Parameter
from paddler.errors import QueueUnavailable


def _asks(summary: str, type_: Any, description: str) -> Operation:
    return Operation(
        summary=summary,
        tag="management",
        parameters=(Parameter(name="agent_id", where="path", description="`id` of an agent."),),
        answers={
            200: Answer(description=description, content={JSON: type_}),
            404: Answer(description="No agent has this id.", content={TEXT: str}),
            502: Answer(description="The agent hears nothing at the moment.", content={TEXT: str}),
            504: Answer(description="The agent has not answered within 3 s.", content={TEXT: str}),
        },
        errors=(QueueUnavailable,),
        error_body=ErrorAnswer,
        error_headers=(
            Parameter(name="retry-after", type=int, description="Seconds."),
            Parameter(name="x-should-retry", description="Whether the same may succeed later."),
        ),
    )


METADATA = _asks(
    "What the file of an agent's model says of itself.",
    ModelMetadata | None,
    "Everything in the GGUF's header as text; of lists the beginning. `null` while it serves no model.",
)
TEMPLATE_OVERRIDE = _asks(
    "The chat template that an agent uses in place of its model's own.",
    TemplateOverride | None,
    "The template; `null` when it uses the model's own.",
)
