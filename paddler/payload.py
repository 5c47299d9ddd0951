"""What every engine refuses in a payload, before any model is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator

from paddler.errors import InvalidField
from paddler.images import check_images
from paddler.structure.gbnf import check_gbnf
from paddler.structure.rules import GrammarError
from paddler.wire.agent import (
    ApplyTemplate,
    CountTokens,
    Detokenize,
    Embed,
    Encode,
    Generate,
    Payload,
    Question,
    Rerank,
    Sampling,
    Tokenize,
)

MAX_STOPS = 64
MAX_STOP_CHARS = 4096
MAX_LOGPROBS = 20
MAX_BIASES = 1024
MAX_BIAS = 100.0
BAN = -MAX_BIAS
"""A bias that means: never."""
MAX_BIAS_CHARS = 256
MAX_BREAKERS = 16
MAX_BREAKER_CHARS = 40
MAX_QUESTION_BYTES = 1 << 22
"""Of the text that a question is about: a conversation of a million tokens."""
MAX_QUESTION_TOKENS = 1 << 18

SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (-math.inf, 1e3),
    "top_k": (-(2**31), 2**31 - 1),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "penalty_last_n": (-1, 2**31 - 1),
    "penalty_repeat": (1e-3, 1e3),
    "penalty_frequency": (-1e3, 1e3),
    "penalty_presence": (-1e3, 1e3),
    "seed": (0, 2**32 - 1),
    "min_keep": (0, 2**31 - 1),
    "typical_p": (0, 1),
    "top_n_sigma": (-1e3, 1e3),
    "xtc_probability": (0, 1),
    "xtc_threshold": (0, 1),
    "dynatemp_range": (0, 1e3),
    "dynatemp_exponent": (0, 100),
    "dry_multiplier": (0, 1e3),
    "dry_base": (1, 100),
    "dry_allowed_length": (0, 2**31 - 1),
    "dry_penalty_last_n": (-1, 2**31 - 1),
    "mirostat": (0, 2),
    "mirostat_tau": (0, 100),
    "mirostat_eta": (0, 1),
}


def check_payload(payload: Payload) -> None:
    """Raises `InvalidField`."""
    if isinstance(payload, Generate):
        _check_generate(payload)
    elif isinstance(payload, Embed | Rerank):
        _check_encode(payload)
    else:
        _check_question(payload)


def _check_question(payload: Question) -> None:
    match payload:
        case Tokenize(text=text):
            check_size(text, "content")
        case Detokenize(tokens=tokens):
            if len(tokens) > MAX_QUESTION_TOKENS:
                raise InvalidField(f"at most {MAX_QUESTION_TOKENS} tokens are made text at once", param="tokens")
        case ApplyTemplate(request=request) | CountTokens(request=request):
            _check_generate(request)
            check_size("".join(_texts_of(request)), "prompt" if request.messages is None else "messages")


def question_size(payload: Question) -> int:
    """About how many bytes of text it takes to answer."""
    match payload:
        case Tokenize(text=text):
            return len(text)
        case Detokenize(tokens=tokens):
            return len(tokens)
        case ApplyTemplate(request=request) | CountTokens(request=request):
            # A template writes some more for each.
            return sum(len(text) + 64 for text in _texts_of(request))


def _texts_of(request: Generate) -> Iterator[str]:
    yield request.prompt or ""
    yield request.suffix or ""
    yield request.beginning
    for message in request.messages or ():
        yield message.content
        yield message.reasoning_content or ""
        yield from (call.arguments for call in message.tool_calls)
    for tool in request.tools:
        yield tool.parameters
        yield tool.description or ""


def check_size(text: str, param: str) -> None:
    """Raises `InvalidField` for more text than a question may be about."""
    if (size := len(text.encode("utf-8", "replace"))) > MAX_QUESTION_BYTES:
        raise InvalidField(f"{param}: {size} bytes of text are more than {MAX_QUESTION_BYTES}", param=param)


def _check_encode(payload: Encode) -> None:
    if isinstance(payload, Rerank) and not payload.query:
        raise InvalidField("query must not be empty", param="query")
    if not payload.inputs:
        name = "documents" if isinstance(payload, Rerank) else "input"
        raise InvalidField(f"{name} must not be empty", param=name)
    for index, text in enumerate(payload.inputs):
        if not text:
            name = payload.name_of(index)
            raise InvalidField(f"{name} must not be empty", param=name)
    if isinstance(payload, Embed) and not 0 <= payload.rms_epsilon <= 1:
        raise InvalidField("rms_epsilon must be between 0 and 1", param="rms_epsilon")


def vector_size(payload: Encode, own: int) -> int:
    """How many numbers each vector of the answer has, of a model whose vectors have `own`; a score is one. Raises
    `InvalidField` for more dimensions than the model's."""
    if isinstance(payload, Rerank):
        return 1
    if payload.dimensions is None:
        return own
    if not 1 <= payload.dimensions <= own:
        raise InvalidField(
            f"dimensions must be between 1 and {own}, which this model's embeddings have, not {payload.dimensions}",
            param="dimensions",
        )
    return payload.dimensions


def _check_generate(payload: Generate) -> None:
    if sum(given is not None for given in (payload.messages, payload.prompt, payload.prompt_ids)) != 1:
        raise InvalidField("give exactly one of messages and prompt", param="messages")
    if payload.suffix is not None and payload.prompt is None:
        raise InvalidField("a suffix goes with a prompt that is text", param="suffix")
    if payload.messages is not None and not payload.messages:
        raise InvalidField("messages must not be empty", param="messages")
    if payload.beginning and payload.messages is None:
        raise InvalidField("what an answer begins with goes with messages", param="prompt")
    if payload.max_tokens is not None and payload.max_tokens < 0:
        raise InvalidField(f"max_tokens must not be negative, but is {payload.max_tokens}", param="max_tokens")
    if len(payload.stop) > MAX_STOPS:
        raise InvalidField(f"at most {MAX_STOPS} stop strings are allowed, not {len(payload.stop)}", param="stop")
    if not all(0 < len(stop) <= MAX_STOP_CHARS for stop in payload.stop):
        raise InvalidField(f"a stop string must have 1 to {MAX_STOP_CHARS} characters", param="stop")
    if payload.logprobs is not None and not 0 <= payload.logprobs <= MAX_LOGPROBS:
        raise InvalidField(
            f"top_logprobs must be between 0 and {MAX_LOGPROBS}, not {payload.logprobs}", param="top_logprobs"
        )
    check_images(payload)
    check_sampling(payload.sampling)
    if payload.tools and payload.messages is None:
        raise InvalidField("tools go with messages, not with a prompt", param="tools")
    if payload.callable_tools and payload.grammar is not None:
        raise InvalidField("tools and a grammar exclude each other", param="tools")
    if payload.tool_name is not None and payload.tool_name not in {tool.name for tool in payload.callable_tools}:
        raise InvalidField(f"no tool is called {payload.tool_name[:64]!r}", param="tool_choice")
    if payload.tool_choice == "required" and not payload.tools:
        raise InvalidField("a call of a tool is required, but there are no tools", param="tool_choice")
    if payload.grammar is not None:
        check_grammar(payload.grammar, "grammar")


def check_grammar(grammar: str, param: str) -> None:
    """Raises `InvalidField`."""
    try:
        check_gbnf(grammar)
    except GrammarError as error:
        raise InvalidField(f"`{param}`: {error}.", param=param) from None


def check_sampling(sampling: Sampling) -> None:
    """Raises `InvalidField` for values out of range, infinities and NaN: native code would not survive them all."""
    for name, (low, high) in SAMPLING_RANGES.items():
        value: float = getattr(sampling, name)
        if not low <= value <= high:
            raise InvalidField(f"{name} must be between {low:g} and {high:g}, not {value:g}", param=name)
    if sampling.logit_bias:
        _check_bias(sampling.logit_bias)
    breakers = sampling.dry_sequence_breakers
    if len(breakers) > MAX_BREAKERS or not all(0 < len(breaker) <= MAX_BREAKER_CHARS for breaker in breakers):
        raise InvalidField(
            f"dry_sequence_breakers must be at most {MAX_BREAKERS} texts of 1 to {MAX_BREAKER_CHARS} characters",
            param="dry_sequence_breakers",
        )


def _check_bias(biases: tuple[tuple[int | str, float], ...]) -> None:
    if len(biases) > MAX_BIASES:
        raise InvalidField(f"at most {MAX_BIASES} tokens may have a bias, not {len(biases)}", param="logit_bias")
    for entry, bias in biases:
        is_text = isinstance(entry, str)
        if is_text and not 0 < len(entry) <= MAX_BIAS_CHARS:
            raise InvalidField(f"a text in logit_bias must have 1 to {MAX_BIAS_CHARS} characters", param="logit_bias")
        if not is_text and not 0 <= entry < 2**31:
            raise InvalidField(f"logit_bias names token {entry}, which no model has", param="logit_bias")
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise InvalidField(
                f"a bias must be between {-MAX_BIAS:g} and {MAX_BIAS:g}, not {bias:g}", param="logit_bias"
            )
