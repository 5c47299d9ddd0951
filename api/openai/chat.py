"""`POST /v1/chat/completions`: from a body to a payload for the queue."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from api.openai.images import read_image_url
from api.openai.sampling import read_sampling
from api.openai.schema import NOT_YET, ChatMessage, ChatRequest, ContentPart
from api.openai.structure import read_grammar
from api.validation import decode_body, unsupported
from paddler.errors import InvalidField
from paddler.images import check_images
from paddler.wire.agent import Generate, ImagePart, Message, TextPart

_decoder = msgspec.json.Decoder(ChatRequest)

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TOOL_ROLES = ("tool", "function")


class ChatCall(Struct, frozen=True):
    """A checked request: what to generate, and how the client wants to receive it."""

    model: str
    payload: Generate
    stream: bool
    include_usage: bool
    is_background: bool = False
    cache_key: str | None = None
    n: int = 1


def read_chat_call(body: bytes, random_seed: int) -> ChatCall:
    """Decode, check and translate a body; `random_seed` (32 bits) serves requests that name no seed.

    Raises `InvalidField`, or `ClientException` for bytes that are no JSON.
    """
    request = decode_body(body, _decoder, NOT_YET)
    options = request.stream_options
    if options is not None and not request.stream:
        raise InvalidField("`stream_options` needs `stream` to be true.", param="stream_options")
    if options is not None and options.include_obfuscation:
        raise unsupported("stream_options.include_obfuscation", "`include_obfuscation`")

    payload = Generate(
        messages=tuple(_message(index, message) for index, message in enumerate(request.messages)),
        max_tokens=_max_tokens(request),
        stop=_stop(request),
        sampling=read_sampling(request, random_seed),
        grammar=read_grammar(request),
        logprobs=_logprobs(request),
    )
    check_images(payload)
    return ChatCall(
        model=request.model,
        payload=payload,
        stream=bool(request.stream),
        include_usage=options is not None and bool(options.include_usage),
        is_background=bool(request.background),
        cache_key=request.prompt_cache_key,
        n=_num_choices(request),
    )


def _message(index: int, message: ChatMessage) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        param = f"messages[{index}].role"
        if message.role in _TOOL_ROLES:
            raise unsupported(param, f"Role `{message.role}`")
        raise InvalidField(f"`{param}` must be one of {', '.join(_ROLES)}.", param=param)
    param, content = f"messages[{index}].content", message.content
    if isinstance(content, str):
        return Message(role, content, message.name)
    if not content:
        raise InvalidField(f"`{param}` must be a string or a list of at least one part.", param=param)
    parts = tuple(_part(f"{param}[{index}]", part) for index, part in enumerate(content))
    # Joined with a newline, as llama.cpp's server does for templates that take strings.
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    has_image = any(isinstance(part, ImagePart) for part in parts)
    return Message(role, text, message.name, parts if has_image else ())


def _part(param: str, part: ContentPart) -> TextPart | ImagePart:
    for name in ("text", "image_url", "input_audio", "file", "refusal"):
        if part.type in ("text", "image_url") and name != part.type and getattr(part, name) is not None:
            where = f"{param}.{name}"
            raise InvalidField(f"`{where}` does not belong to a part of type `{part.type}`.", param=where)
    match part.type:
        case "text":
            if part.text is None:
                raise InvalidField(f"`{param}.text` is required.", param=f"{param}.text")
            return TextPart(part.text)
        case "image_url":
            if part.image_url is None:
                raise InvalidField(f"`{param}.image_url` is required.", param=f"{param}.image_url")
            return ImagePart(read_image_url(param, part.image_url.url))
        case _:
            raise unsupported(f"{param}.type", f"Content of type `{part.type[:60]}`")


def _max_tokens(request: ChatRequest) -> int | None:
    """What the three names for it say; -1 of `n_predict` is no bound."""
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise InvalidField(
            "`max_tokens` and `max_completion_tokens` differ; send only `max_completion_tokens`.", param="max_tokens"
        )
    given = old if new is None else new
    if request.n_predict is None or request.n_predict == given:
        return given
    if given is not None:
        raise InvalidField("`n_predict` and `max_tokens` differ; send one of them.", param="n_predict")
    return None if request.n_predict < 0 else request.n_predict


def _num_choices(request: ChatRequest) -> int:
    n = request.n or 1
    if n > 1 and (request.stream or request.background):
        field = "stream" if request.stream else "background"
        raise unsupported("n", f"`n` other than 1 together with `{field}`")
    return n


def _logprobs(request: ChatRequest) -> int | None:
    if not request.logprobs:
        if request.top_logprobs:
            raise InvalidField("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
        return None
    return request.top_logprobs or 0


def _stop(request: ChatRequest) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(dict.fromkeys(request.stop))
