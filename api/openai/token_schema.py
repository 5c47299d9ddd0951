"""Bodies of `/tokenize`, `/detokenize` and `/apply-template`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.openai.schema import ChatRequest
from paddler.jobs.gateway import DEFAULT_POOL
from paddler.payload import MAX_QUESTION_TOKENS

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class TokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /tokenize`; `null` means absent."""

    content: str
    model: ModelName | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /detokenize`."""

    tokens: Annotated[list[TokenId], Meta(max_length=MAX_QUESTION_TOKENS)]
    model: ModelName | None = None


class TemplateRequest(ChatRequest, kw_only=True):
    """`POST /apply-template`: a chat request as it would be sent. What of it is not part of the prompt changes nothing.
    `add_generation_prompt` false: without the words that begin an answer."""

    model: ModelName = DEFAULT_POOL
    add_generation_prompt: bool | None = None


TOKENIZE_DECODER = msgspec.json.Decoder(TokenizeRequest)
DETOKENIZE_DECODER = msgspec.json.Decoder(DetokenizeRequest)
TEMPLATE_DECODER = msgspec.json.Decoder(TemplateRequest)
