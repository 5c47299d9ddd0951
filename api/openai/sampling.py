"""How a request wants tokens chosen: from the fields of OpenAI and of llama.cpp's server to the wire's."""

from __future__ import annotations

import re
from typing import Any

from api.openai.schema import BiasList, BiasMap, GenerationRequest
from paddler.desired.sampling import AskedSampling, asked_sampling
from paddler.errors import InvalidField
from paddler.payload import BAN, MAX_BIAS_CHARS

_SAME = (
    *("temperature", "top_p", "min_p", "ignore_eos", "min_keep", "typical_p", "top_n_sigma", "xtc_probability"),
    *("xtc_threshold", "dynatemp_range", "dynatemp_exponent", "dry_multiplier", "dry_base", "dry_allowed_length"),
    *("dry_penalty_last_n", "mirostat", "mirostat_tau", "mirostat_eta"),
)
_RENAMED = {
    "repeat_last_n": "penalty_last_n",
    "repeat_penalty": "penalty_repeat",
    "frequency_penalty": "penalty_frequency",
    "presence_penalty": "penalty_presence",
}
_TOKEN_ID = re.compile(r"[0-9]{1,9}")


def read_sampling(request: GenerationRequest, random_seed: int) -> AskedSampling:
    """What the request leaves out is the pool's. A seed is taken modulo 2**32. Raises `InvalidField`."""
    given: dict[str, Any] = {name: getattr(request, name) for name in _SAME}
    given |= {ours: getattr(request, theirs) for theirs, ours in _RENAMED.items()}
    if request.top_k is not None:
        given["top_k"] = max(request.top_k, 0)
    if request.logit_bias:
        given["logit_bias"] = _biases(request.logit_bias)
    if request.dry_sequence_breakers is not None:
        given["dry_sequence_breakers"] = tuple(request.dry_sequence_breakers)
    seed = random_seed if request.seed is None else request.seed % 2**32
    return asked_sampling(seed, given)


def _biases(biases: BiasMap | BiasList) -> tuple[tuple[int | str, float], ...]:
    """`{"15043": -100}` as OpenAI has it; also `{"Hello": -1}` and `[[15043, false], ["Hello", -1]]` as llama.cpp."""
    pairs = [(_entry(name), bias) for name, bias in biases.items()] if isinstance(biases, dict) else biases
    return tuple((entry, _bias(bias)) for entry, bias in pairs)


def _entry(name: str) -> int | str:
    if not 0 < len(name) <= MAX_BIAS_CHARS:
        raise InvalidField(
            f"`logit_bias`: a token's id, or a text of 1 to {MAX_BIAS_CHARS} characters.", param="logit_bias"
        )
    return int(name) if _TOKEN_ID.fullmatch(name) else name


def _bias(bias: float | bool) -> float:
    if bias is True:
        raise InvalidField("`logit_bias`: a bias is a number, or false for never.", param="logit_bias")
    return BAN if bias is False else float(bias)
