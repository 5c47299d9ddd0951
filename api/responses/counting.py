"""`POST /v1/responses/input_tokens`: how many tokens the prompt of a response has. Only an agent knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypedDict

import msgspec

from api.responses.call import ResponseCall
from paddler.errors import InvalidField
from paddler.wire.answers import Counted


class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


def check_counts(call: ResponseCall) -> None:
    """Raises `InvalidField` for what is about an answer."""
    request = call.request
    for name, is_asked in (
        ("stream", bool(request.stream)),
        ("background", call.is_background),
        ("store", request.store is True),
    ):
        if is_asked:
            raise InvalidField(f"`{name}` is about an answer, and here tokens are counted; leave it out.", param=name)


def count_body(counted: Counted) -> Iterable[bytes]:
    return (msgspec.json.encode(InputTokens(object="response.input_tokens", input_tokens=counted.num_tokens)),)
