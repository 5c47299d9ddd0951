"""What every engine refuses in a payload, before any model is asked."""

from __future__ import annotations

import math

from paddler.errors import InvalidField
from paddler.structure.gbnf import check_gbnf
from paddler.structure.rules import GrammarError
from paddler.wire.agent import Embed, Generate, Payload, Sampling

MAX_STOPS = 64
MAX_STOP_CHARS = 4096

_SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (-math.inf, 1e3),
    "top_k": (-(2**31), 2**31 - 1),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "penalty_last_n": (-1, 2**31 - 1),
    "penalty_repeat": (1e-3, 1e3),
    "penalty_frequency": (-1e3, 1e3),
    "penalty_presence": (-1e3, 1e3),
    "seed": (0, 2**32 - 1),
}


def check_payload(payload: Payload) -> None:
    """Raises `InvalidField`."""
    if isinstance(payload, Embed):
        _check_embed(payload)
    else:
        _check_generate(payload)


def _check_embed(payload: Embed) -> None:
    if not payload.inputs:
        raise InvalidField("input must not be empty", param="input")
    for index, text in enumerate(payload.inputs):
        if not text:
            name = payload.name_of(index)
            raise InvalidField(f"{name} must not be empty", param=name)
    if not 0 <= payload.rms_epsilon <= 1:
        raise InvalidField("rms_epsilon must be between 0 and 1", param="rms_epsilon")


def check_dimensions(payload: Embed, size: int) -> None:
    """Raises `InvalidField` unless the client takes vectors of the model's `size`."""
    if payload.dimensions not in (None, size):
        raise InvalidField(
            f"this model's embeddings have {size} dimensions and are not shortened: leave dimensions out",
            param="dimensions",
        )


def _check_generate(payload: Generate) -> None:
    if (payload.messages is None) == (payload.prompt is None):
        raise InvalidField("give exactly one of messages and prompt", param="messages")
    if payload.messages is not None and not payload.messages:
        raise InvalidField("messages must not be empty", param="messages")
    if payload.max_tokens is not None and payload.max_tokens < 0:
        raise InvalidField(f"max_tokens must not be negative, but is {payload.max_tokens}", param="max_tokens")
    if len(payload.stop) > MAX_STOPS:
        raise InvalidField(f"at most {MAX_STOPS} stop strings are allowed, not {len(payload.stop)}", param="stop")
    if not all(0 < len(stop) <= MAX_STOP_CHARS for stop in payload.stop):
        raise InvalidField(f"a stop string must have 1 to {MAX_STOP_CHARS} characters", param="stop")
    check_sampling(payload.sampling)
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
    for name, (low, high) in _SAMPLING_RANGES.items():
        value: float = getattr(sampling, name)
        if not low <= value <= high:
            raise InvalidField(f"{name} must be between {low:g} and {high:g}, not {value:g}", param=name)
