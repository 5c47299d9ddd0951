"""llama.cpp's own samplers, as far as Paddler uses them. They own native memory: `close` them."""

from __future__ import annotations

import ctypes
import math
import weakref
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from paddler.wire.agent import Sampling
from workers.agent.llama import LogitArray, Model, forget_problems, lib, problems

GREEDY_BELOW = 1e-4
"""A temperature: dividing logits by less overflows to infinity."""
_RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: llama.cpp draws a random seed instead
_LEAST_RATIO = 1e-9
_LEAST_P = 1e-38
_XTC_OFF_ABOVE = 0.5  # in llama.cpp: two tokens cannot both be above
_MIROSTAT_M = 100  # of llama.cpp's server: how many tokens version 1 estimates from


class SamplerChain:
    """llama.cpp's default order: top_n_sigma -> top_k -> typical_p -> top_p -> min_p -> xtc -> temperature, then a
    draw. The seeds of xtc and of the draw are given anew for every token."""

    def __init__(self, sampling: Sampling) -> None:
        params = lib.llama_sampler_chain_default_params()
        params.no_perf = True
        self.pointer: Any = lib.llama_sampler_chain_init(params)
        self.close = weakref.finalize(self, lib.llama_sampler_free, self.pointer)
        self._sampling = sampling
        self._min_keep = min_keep = max(sampling.min_keep, 1)
        if sampling.top_n_sigma > 0:
            self._add(lib.llama_sampler_init_top_n_sigma(sampling.top_n_sigma))
        if sampling.top_k > 0:
            self._add(lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.typical_p < 1:
            # Its entropy is no number as long as there are tokens of probability 0.
            self._add(lib.llama_sampler_init_min_p(_LEAST_RATIO, min_keep))
            self._add(lib.llama_sampler_init_typical(sampling.typical_p, min_keep))
        if sampling.top_p < 1:
            self._add(lib.llama_sampler_init_top_p(sampling.top_p, min_keep))
        if sampling.min_p > 0:
            self._add(lib.llama_sampler_init_min_p(sampling.min_p, min_keep))
        self.has_xtc = sampling.xtc_probability > 0 and sampling.xtc_threshold <= _XTC_OFF_ABOVE
        if not self.has_xtc:
            self._add(self._temperature())
        self._num_fixed: int = lib.llama_sampler_chain_n(self.pointer)
        self._num_seeded = 0

    def reseed(self, draw: int, xtc: int) -> None:
        """Seeds of the next token."""
        for _ in range(self._num_seeded):
            lib.llama_sampler_free(lib.llama_sampler_chain_remove(self.pointer, self._num_fixed))
        if self.has_xtc:
            probability = self._sampling.xtc_probability
            # At 0 it would leave only the least likely of all: one that is banned, or that the grammar does not allow.
            threshold = max(self._sampling.xtc_threshold, _LEAST_P)
            self._add(lib.llama_sampler_init_xtc(probability, threshold, self._min_keep, _fixed_seed(xtc)))
            self._add(self._temperature())
        self._add(lib.llama_sampler_init_dist(_fixed_seed(draw)))
        self._num_seeded = 3 if self.has_xtc else 1

    def _temperature(self) -> Any:
        sampling = self._sampling
        if sampling.dynatemp_range <= 0:
            return lib.llama_sampler_init_temp(sampling.temperature)
        # llama.cpp takes the middle and the half width, and would begin at 0.
        low = max(sampling.temperature - sampling.dynatemp_range, GREEDY_BELOW)
        high = max(sampling.temperature + sampling.dynatemp_range, low)
        return lib.llama_sampler_init_temp_ext((low + high) / 2, (high - low) / 2, sampling.dynatemp_exponent)

    def _add(self, sampler: Any) -> None:
        lib.llama_sampler_chain_add(self.pointer, sampler)


class Mirostat:
    """Mirostat 1 or 2, behind the temperature. `mu`, how surprising a token may be, follows from the logits of all
    tokens before: who goes on with a sequence must be given it."""

    def __init__(self, sampling: Sampling, vocab_size: int, mu: float | None = None) -> None:
        self._sampling = sampling
        self.mu = 2 * sampling.mirostat_tau if mu is None else mu
        self._candidates = np.zeros(vocab_size, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._ids = np.arange(vocab_size, dtype=np.int32)
        self._temperature: Any = lib.llama_sampler_init_temp(sampling.temperature)
        self.close = weakref.finalize(self, lib.llama_sampler_free, self._temperature)

    def draw(self, logits: LogitArray, seed: int) -> int:
        """Choose a token and move `mu`."""
        candidates, sampling = self._candidates, self._sampling
        candidates["id"], candidates["logit"] = self._ids, logits
        data = cast(Any, candidates.ctypes).data_as(ctypes.POINTER(lib.llama_token_data))
        array = lib.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        # One that is new begins at twice its tau: so it has our mu, and does one step.
        if sampling.mirostat == 1:
            sampler = lib.llama_sampler_init_mirostat(
                len(candidates), _fixed_seed(seed), self.mu / 2, sampling.mirostat_eta, _MIROSTAT_M
            )
        else:
            sampler = lib.llama_sampler_init_mirostat_v2(_fixed_seed(seed), self.mu / 2, sampling.mirostat_eta)
        lib.llama_sampler_apply(self._temperature, ctypes.byref(array))
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        lib.llama_sampler_free(sampler)
        chosen = array.data[array.selected]
        surprise = -math.log2(max(chosen.p, _LEAST_P))
        self.mu -= sampling.mirostat_eta * (surprise - sampling.mirostat_tau)
        return int(chosen.id)


def _fixed_seed(seed: int) -> int:
    return seed if seed != _RANDOM_SEED else _RANDOM_SEED - 1


class GrammarState:
    """A grammar in GBNF and where in it a text is. Raises `ValueError` for a grammar that llama.cpp refuses."""

    def __init__(self, model: Model, gbnf: str, root: str = "root") -> None:
        self._candidates = model.candidates
        forget_problems()
        self._pointer: Any = lib.llama_sampler_init_grammar(model.vocab, gbnf.encode("utf-8", "replace"), root.encode())
        if not self._pointer:
            raise ValueError(problems())
        self.close = weakref.finalize(self, lib.llama_sampler_free, self._pointer)

    def allowed(self, tokens: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of the tokens may be next. An end-of-generation token: whether the text is complete."""
        rows, struct = self._candidates.rows[: len(tokens)], self._candidates.struct
        rows["id"], rows["logit"] = tokens, 0
        struct.size, struct.selected, struct.sorted = len(rows), -1, False
        lib.llama_sampler_apply(self._pointer, ctypes.byref(struct))
        return rows["logit"] == 0

    def accept(self, token: int) -> None:
        """Go on behind a token that is `allowed`: llama.cpp ends the process for another one."""
        lib.llama_sampler_accept(self._pointer, token)
