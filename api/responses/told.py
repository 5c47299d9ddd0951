"""Errors in the words of the Responses API.

A response is answered by what answers chat completions, on the balancer and on the agent, and their errors name the
fields of a chat completion.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from litestar.types import ASGIApp, Receive, Scope, Send

from paddler.errors import PaddlerError, RequestError

_RENAMED = (
    (re.compile(r"tools\[(\d+)\]\.function\b"), r"tools[\1]"),
    (re.compile(r"\btool_choice\.function\b"), "tool_choice"),
    (re.compile(r"\bresponse_format\.json_schema\b"), "text.format"),
    (re.compile(r"\bresponse_format\b"), "text.format"),
    (re.compile(r"\bmessages(\[\d+\](\.\w+(\[\d+\])?)*)?(?=`|\Z)"), "input"),
    (re.compile(r"\bchat_template_kwargs\.enable_thinking\b"), "reasoning.effort"),
    (re.compile(r"the chat template of this model has no variable 'enable_thinking'"), "this model cannot think first"),
    (re.compile(r"\.image_url\.url\b"), ".image_url"),
)


def told_of_response(error: PaddlerError) -> PaddlerError:
    """The same error, of the fields of a response; those of the fleet are as they are."""
    if not isinstance(error, RequestError):
        return error
    told = type(error)(_rename(error.message), param=error.param and _rename(error.param))
    told.retry_after_s = error.retry_after_s
    return told


@contextmanager
def told_as_response() -> Generator[None]:
    try:
        yield
    except RequestError as error:
        raise told_of_response(error) from None


class ToldAsResponse:
    """An answer whose errors are those of a response."""

    def __init__(self, answer: ASGIApp) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with told_as_response():
            await self._answer(scope, receive, send)


def _rename(text: str) -> str:
    for pattern, name in _RENAMED:
        text = pattern.sub(name, text)
    return text
