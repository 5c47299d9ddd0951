"""`POST /v1/chat/completions`: from a body to a payload for the queue."""

from __future__ import annotations

from functools import partial

import msgspec
from msgspec import Struct

from api.body import read_aside
from api.openai.limits import read_include_usage, read_max_tokens, read_stop
from api.openai.messages import read_messages
from api.openai.sampling import read_sampling
from api.openai.schema import NOT_YET, ChatRequest
from api.openai.structure import read_grammar, read_schema
from api.openai.tools import read_tool_choice, read_tools, read_variables
from api.validation import decode_body, unsupported
from paddler.errors import InvalidField
from paddler.images import check_images
from paddler.wire.agent import Generate

DECODER = msgspec.json.Decoder(ChatRequest)


class ChatCall(Struct, frozen=True):
    """A checked request: what to generate, and how the client wants to receive it."""

    model: str
    payload: Generate
    stream: bool
    include_usage: bool
    is_background: bool = False
    cache_key: str | None = None
    n: int = 1


async def receive_chat_call(body: bytes, random_seed: int) -> ChatCall:
    """As `read_chat_call`, in a thread if it may take long."""
    return await read_aside(body, partial(read_chat_call, random_seed=random_seed))


def read_chat_call(body: bytes, random_seed: int) -> ChatCall:
    """Decode, check and translate a body; `random_seed` (32 bits) serves requests that name no seed.

    Raises `InvalidField`, or `ClientException` for bytes that are no JSON.
    """
    return chat_call_of(decode_body(body, DECODER, NOT_YET), random_seed)


def chat_call_of(request: ChatRequest, random_seed: int) -> ChatCall:
    """Check and translate. Raises `InvalidField`."""
    include_usage = read_include_usage(request)
    tools = read_tools(request)
    tool_choice, tool_name = read_tool_choice(request, tools)
    payload = Generate(
        messages=read_messages(request.messages),
        max_tokens=read_max_tokens(request, request.max_completion_tokens),
        stop=read_stop(request),
        sampling=read_sampling(request, random_seed),
        grammar=read_grammar(request),
        schema=read_schema(request),
        logprobs=_logprobs(request),
        tools=tools,
        tool_choice=tool_choice,
        tool_name=tool_name,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        template_kwargs=read_variables(request),
    )
    if payload.callable_tools:
        _check_beside_tools(payload)
    check_images(payload)
    return ChatCall(
        model=request.model,
        payload=payload,
        stream=bool(request.stream),
        include_usage=include_usage,
        is_background=bool(request.background),
        cache_key=request.prompt_cache_key,
        n=_num_choices(request),
    )


def _check_beside_tools(payload: Generate) -> None:
    form = "a form of the answer (`response_format`, `json_schema`, `grammar`)" if payload.grammar is not None else ""
    if other := form or ("`logprobs`" if payload.logprobs is not None else ""):
        raise InvalidField(
            f"`tools` and {other} exclude each other; leave one out, or set `tool_choice` to `none`.", param="tools"
        )


def _num_choices(request: ChatRequest) -> int:
    n = request.n or 1
    if n > 1 and request.background:
        raise unsupported("n", "`n` other than 1 together with `background`")
    return n


def _logprobs(request: ChatRequest) -> int | None:
    if not request.logprobs:
        if request.top_logprobs:
            raise InvalidField("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
        return None
    return request.top_logprobs or 0
