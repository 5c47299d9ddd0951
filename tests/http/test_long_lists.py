"""Lists of a body have a length that is checked before anything is made of them: what is longer would only be refused
later, after seconds of work."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from api.native.calls import read_conversation
from api.openai.chat import read_chat_call
from api.openai.schema import MAX_MESSAGES
from api.responses.schema import ResponsesRequest
from api.tools import MAX_TOOLS
from api.validation import decode_body
from paddler.errors import InvalidField

SAID = {"role": "user", "content": "a"}


def read_response(body: bytes, _: int) -> Any:
    return decode_body(body, msgspec.json.Decoder(ResponsesRequest), {})


@pytest.mark.parametrize(
    ("read", "body", "field"),
    [
        (read_chat_call, {"model": "m", "messages": [SAID] * (MAX_MESSAGES + 1)}, "messages"),
        (
            read_conversation,
            {
                "add_generation_prompt": True,
                "enable_thinking": False,
                "max_tokens": 1,
                "conversation_history": [SAID] * (MAX_MESSAGES + 1),
            },
            "conversation_history",
        ),
        (read_response, {"model": "m", "input": "a", "tools": [1] * (MAX_TOOLS + 1)}, "tools"),
    ],
    ids=["chat", "native", "response"],
)
def test_a_list_that_is_too_long_is_named(read: Callable[[bytes, int], Any], body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField, match="length") as error:
        read(json.dumps(body).encode(), 0)
    assert error.value.param == field
