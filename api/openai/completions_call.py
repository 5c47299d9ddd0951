"""`POST /v1/completions`: from a body to payloads for the queue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from api.body import read_aside
from api.openai.completions_schema import (
    COMPLETIONS_NOT_YET,
    DEFAULT_MAX_TOKENS,
    MAX_ECHO,
    MAX_PROMPTS,
    CompletionRequest,
    PromptItem,
)
from api.openai.limits import read_include_usage, read_max_tokens, read_stop
from api.openai.sampling import read_sampling
from api.openai.structure import read_grammar, read_schema
from api.validation import decode_body, unsupported
from paddler.errors import InvalidField
from paddler.wire.agent import Generate

DECODER = msgspec.json.Decoder(CompletionRequest)


class CompletionCall(Struct, frozen=True):
    """A checked request. Each of `prompts` gets `n` choices, the best of `best_of`."""

    model: str
    prompts: tuple[Generate, ...]
    n: int
    best_of: int
    stream: bool
    include_usage: bool
    is_background: bool
    cache_key: str | None
    has_echo: bool
    has_logprobs: bool

    @property
    def is_single(self) -> bool:
        """It is one request of the queue."""
        return len(self.prompts) == self.best_of == 1


async def receive_completion_call(body: bytes, random_seed: int) -> CompletionCall:
    """As `read_completion_call`, in a thread if it may take long."""
    return await read_aside(body, partial(read_completion_call, random_seed=random_seed))


def read_completion_call(body: bytes, random_seed: int) -> CompletionCall:
    """Decode, check and translate a body; `random_seed` (32 bits) serves requests that name no seed.

    Raises `InvalidField`, or `ClientException` for bytes that are no JSON.
    """
    request = decode_body(body, DECODER, COMPLETIONS_NOT_YET)
    include_usage = read_include_usage(request)
    has_no_bound = request.max_tokens is None and request.n_predict is None
    n, best_of = _choices(request)
    # Of several candidates the likeliest are the best.
    logprobs = 0 if request.logprobs is None and best_of > n else request.logprobs
    common = Generate(
        max_tokens=DEFAULT_MAX_TOKENS if has_no_bound else read_max_tokens(request),
        stop=read_stop(request),
        sampling=read_sampling(request, random_seed),
        grammar=read_grammar(request),
        schema=read_schema(request),
        logprobs=logprobs,
        suffix=request.suffix,
    )
    prompts = tuple(_prompts(request.prompt, common))
    if len(prompts) * best_of > MAX_PROMPTS:
        raise InvalidField(f"`prompt`: at most {MAX_PROMPTS} choices in all are made at once.", param="prompt")
    call = CompletionCall(
        model=request.model,
        prompts=prompts,
        n=n,
        best_of=best_of,
        stream=bool(request.stream),
        include_usage=include_usage,
        is_background=bool(request.background),
        cache_key=request.prompt_cache_key,
        has_echo=bool(request.echo),
        has_logprobs=request.logprobs is not None,
    )
    _check(request, call)
    return call


def _choices(request: CompletionRequest) -> tuple[int, int]:
    n = request.n or 1
    best_of = n if request.best_of is None else request.best_of
    if best_of < n:
        raise InvalidField("`best_of` must not be less than `n`.", param="best_of")
    if best_of > n and request.stream:
        raise InvalidField("`best_of` greater than `n` cannot be streamed: leave out one of them.", param="best_of")
    return n, best_of


def _check(request: CompletionRequest, call: CompletionCall) -> None:
    if call.is_background and not call.is_single:
        raise unsupported("background", "`background` with more than one prompt or choice")
    if request.suffix is not None:
        if any(prompt.prompt is None for prompt in call.prompts):
            raise InvalidField("`suffix` goes with prompts that are texts.", param="suffix")
        if call.has_echo:
            raise InvalidField("`echo` and `suffix` exclude each other.", param="echo")
    if call.has_echo:
        if request.logprobs is not None:
            raise unsupported("echo", "`echo` together with `logprobs`, those of the prompt,")
        if any(len(prompt.prompt or prompt.prompt_ids or "") > MAX_ECHO for prompt in call.prompts):
            raise InvalidField(f"`echo`: only prompts of up to {MAX_ECHO} characters are echoed.", param="echo")


def _prompts(prompt: str | Sequence[PromptItem], common: Generate) -> list[Generate]:
    if isinstance(prompt, str):
        return [_of_text("prompt", prompt, common)]
    ids = tuple(item for item in prompt if isinstance(item, int))
    if len(ids) == len(prompt):
        return [replace(common, prompt_ids=ids)]
    if ids or len({type(item) for item in prompt}) > 1:
        raise InvalidField(
            "`prompt` must be a text, tokens, a list of texts or a list of lists of tokens.", param="prompt"
        )
    return [_of_item(f"prompt[{index}]", item, common) for index, item in enumerate(prompt)]


def _of_item(param: str, item: PromptItem, common: Generate) -> Generate:
    if isinstance(item, str):
        return _of_text(param, item, common)
    if isinstance(item, int) or not item:
        raise InvalidField(f"`{param}` must not be empty.", param=param)
    return replace(common, prompt_ids=tuple(item))


def _of_text(param: str, text: str, common: Generate) -> Generate:
    if not text and not common.suffix:
        raise InvalidField(f"`{param}` must not be empty.", param=param)
    return replace(common, prompt=text)
