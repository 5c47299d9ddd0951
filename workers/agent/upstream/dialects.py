"""What servers that speak OpenAI's protocol know beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

DialectName = Literal["llama.cpp", "paddler", "vllm", "ollama", "openai"]

_STANDARD = {
    "temperature": "temperature",
    "top_p": "top_p",
    "penalty_presence": "presence_penalty",
    "penalty_frequency": "frequency_penalty",
    "seed": "seed",
}
_LLAMA = _STANDARD | {
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
    "dry_sequence_breakers": "dry_sequence_breakers",
    **{
        name: name
        for name in (
            *("top_k", "min_p", "ignore_eos", "min_keep", "typical_p", "top_n_sigma", "xtc_probability"),
            *("xtc_threshold", "dynatemp_range", "dynatemp_exponent", "dry_multiplier", "dry_base"),
            *("dry_allowed_length", "dry_penalty_last_n", "mirostat", "mirostat_tau", "mirostat_eta"),
        )
    },
}
_VLLM = _STANDARD | {
    "top_k": "top_k",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
    "ignore_eos": "ignore_eos",
}

Continuation = Literal["message", "flags", "template", "none"]
"""How it goes on with an answer to a chat: when the last message is the assistant's; when told so by
`continue_final_message` as well; from a prompt rendered by `/apply-template`; or not at all."""
BiasForm = Literal["any", "ids", "none"]


class Dialect(Struct, frozen=True, kw_only=True):
    """`sampling` are its names for the fields of `wire.agent.Sampling`. `biases`: of tokens named by id or text, of ids
    alone. `always` are sampling fields that are told whatever they are; others only where they differ from the wire's
    default. `grammar` is the field for GBNF. It `renders` prompts (`/apply-template`): with those a text is continued
    `takes_tokens`: a prompt may be tokens, `mixes` tokens and text. With `templates_prompts` a raw prompt is none: it
    becomes a message of the model's template, so that nothing can be continued behind it."""

    name: DialectName
    sampling: Mapping[str, str] = MappingProxyType(_STANDARD)
    biases: BiasForm = "ids"
    always: frozenset[str] = frozenset({"temperature", "top_p", "seed"})
    grammar: str | None = None
    continuation: Continuation = "none"
    renders: bool = False
    takes_template_kwargs: bool = False
    takes_tokens: bool = False
    mixes: bool = False
    takes_suffix: bool = False
    tells_progress: bool = False
    salts_cache: bool = False
    templates_prompts: bool = False


DIALECTS: dict[DialectName, Dialect] = {
    "llama.cpp": Dialect(
        name="llama.cpp",
        sampling=_LLAMA,
        biases="any",
        always=frozenset({"temperature", "top_p", "top_k", "min_p", "seed"}),
        grammar="grammar",
        continuation="message",
        renders=True,
        takes_template_kwargs=True,
        takes_tokens=True,
        mixes=True,
        tells_progress=True,
    ),
    "paddler": Dialect(
        name="paddler",
        sampling=_LLAMA,
        biases="any",
        always=frozenset(_LLAMA),
        grammar="grammar",
        continuation="template",
        renders=True,
        takes_template_kwargs=True,
        takes_tokens=True,
    ),
    "vllm": Dialect(
        name="vllm",
        sampling=_VLLM,
        always=frozenset({"temperature", "top_p", "top_k", "min_p", "seed"}),
        continuation="flags",
        takes_template_kwargs=True,
        takes_tokens=True,
        salts_cache=True,
    ),
    "ollama": Dialect(name="ollama", biases="none", takes_suffix=True, templates_prompts=True),
    "openai": Dialect(name="openai", takes_tokens=True, takes_suffix=True),
}
