"""Context shift: which tokens a sequence goes on with when it has filled its context. Pure.

As llama.cpp's server with `--context-shift` and StreamingLLM (Xiao et al., 2023): the beginning stays, the older half
of the rest goes, what is left moves up. The window is a function of the number of tokens alone, so whoever takes a
request over comes to the same one.
"""

from __future__ import annotations

import numpy as np

from paddler.engine import ModelError
from workers.agent.tokens import TokenArray

MAX_CONTEXTS = 8
"""Of output: one that never ends would hold its slot for ever."""


def max_output(asked: int, max_tokens: int) -> int:
    """How many of the tokens that a request asks for it gets, in a context of `max_tokens`."""
    return min(asked, MAX_CONTEXTS * max_tokens)


def check_can_shift(is_wanted: bool, can_share: bool) -> None:
    """Raises `ModelError` for a memory whose cells are no single positions that could be moved."""
    if is_wanted and not can_share:
        raise ModelError(
            "context_shift is set, but llama.cpp cannot move the positions of this model's memory (recurrent, or in "
            "compressed rows): leave --context-shift out",
            kind="SettingsInvalid",
        )


def num_kept(num_system: int, adds_bos: bool, max_tokens: int) -> int:
    """How many tokens stay for ever: those of the system message and the tools, or the first token if the model wants
    one there; a quarter of the context at most, or little would be left to move."""
    return min(max(num_system, int(adds_bos)), max_tokens // 4)


def num_discarded(kept: int, max_tokens: int) -> int:
    """How many go at once from a context of `max_tokens` that is full."""
    return max((max_tokens - kept) // 2, 1)


def window(tokens: TokenArray, num_prompt: int, kept: int, max_tokens: int) -> tuple[TokenArray, int]:
    """What is left of prompt and output after all shifts so far, and how many tokens have gone. A shift comes as soon
    as `max_tokens` are there, behind a sampled token."""
    gone = 0
    if len(tokens) > num_prompt:
        over = len(tokens) - max_tokens
        gone = (over // num_discarded(kept, max_tokens) + 1) * num_discarded(kept, max_tokens) if over >= 0 else 0
    return np.concatenate([tokens[:kept], tokens[kept + gone :]]) if gone else tokens, gone
