"""What a chat template is given beside the conversation: the variables of a request, and the date."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from paddler.chat_formats.variables import ENABLE_THINKING
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.wire.agent import Generate
from workers.agent.templates import ChatTemplate


def local_time(clock: Clock) -> Callable[[], datetime]:
    """What templates ask for today's date."""
    return lambda: datetime.fromtimestamp(clock.wall()).astimezone()


def template_variables(payload: Generate, template: ChatTemplate) -> dict[str, Any]:
    """What the client sets. Raises `InvalidField` for what the template does not look at: it would change nothing. Only
    `enable_thinking` of the payload itself is a wish."""
    wished = {} if payload.enable_thinking is None else {ENABLE_THINKING: payload.enable_thinking}
    if not payload.template_kwargs:
        return wished
    variables: dict[str, Any] = json.loads(payload.template_kwargs)
    for name, value in variables.items():
        is_as_asked = name == ENABLE_THINKING and value is bool(template.kind.thought)
        if name not in template.variables and not is_as_asked:
            raise InvalidField(
                f"the chat template of this model has no variable {name[:60]!r}: leave it out",
                param=f"chat_template_kwargs.{name[:60]}",
            )
    return wished | variables
