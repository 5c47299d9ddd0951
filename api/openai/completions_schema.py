"""The body of `POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.openai.schema import NOT_YET, GenerationRequest
from paddler.payload import MAX_LOGPROBS

MAX_PROMPTS = 128
"""And so many choices for all of them together."""
DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
MAX_ECHO = 65_536
"""Characters: they are kept with the request, for who follows it later."""

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
PromptItem = str | TokenId | list[TokenId]


class CompletionRequest(GenerationRequest, kw_only=True):
    """`POST /v1/completions`. A list of texts or of lists of tokens is several prompts, one of tokens is one."""

    prompt: str | Annotated[list[PromptItem], Meta(min_length=1)]

    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    suffix: str | None = None


COMPLETIONS_NOT_YET = {name: words for name, words in NOT_YET.items() if "messages" not in name}
