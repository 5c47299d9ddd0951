"""DRY against llama.cpp's own sampler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.wire.agent import Sampling
from workers.agent.dry import Dry, suffix_lengths
from workers.agent.llama import Model, lib

VOCABULARY = 8
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), max_size=60)
Native = Callable[[Sampling, list[int]], np.ndarray]


def native_logits(sampler: Any, tokens: list[int], ids: list[int]) -> np.ndarray:
    """What llama.cpp makes of logits 0 after these tokens. Frees the sampler."""
    candidates = (lib.llama_token_data * len(ids))(*((token, 0.0, 0.0) for token in ids))
    for token in tokens:
        lib.llama_sampler_accept(sampler, token)
    array = lib.llama_token_data_array(data=candidates, size=len(ids), selected=-1, sorted=False)
    lib.llama_sampler_apply(sampler, ctypes.byref(array))
    lib.llama_sampler_free(sampler)
    return np.array([candidate.logit for candidate in candidates], np.float32)


def native_dry(model: Model, sampling: Sampling) -> Any:
    breakers = [text.encode() for text in sampling.dry_sequence_breakers]
    return lib.llama_sampler_init_dry(
        model.vocab,
        *(sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length, sampling.dry_penalty_last_n),
        (ctypes.c_char_p * len(breakers))(*breakers),
        len(breakers),
    )


@given(
    tokens=TOKENS,
    multiplier=st.sampled_from([0.8, 5.0]),
    base=st.sampled_from([1.0, 1.75, 50.0]),
    allowed=st.integers(0, 4),
    last_n=st.sampled_from([1, 2, 7, 30, 64]),
    cut=st.integers(0, 60),
)
def test_without_breakers(
    model: Model, tokens: list[int], multiplier: float, base: float, allowed: int, last_n: int, cut: int
) -> None:
    """However the tokens are given: as a whole, one by one, or some before and the rest one by one."""
    sampling = Sampling(
        dry_multiplier=multiplier, dry_base=base, dry_allowed_length=allowed, dry_penalty_last_n=last_n,
        dry_sequence_breakers=(),
    )  # fmt: skip
    expected = native_logits(native_dry(model, sampling), tokens, list(range(VOCABULARY)))
    for before in {0, min(cut, len(tokens)), len(tokens)}:
        dry = Dry(sampling, lambda _: b"x", max_tokens=1000)
        dry.accept(tokens[:before])
        for token in tokens[before:]:
            dry.accept([token])
        logits = np.zeros(VOCABULARY, np.float32)
        dry.apply(logits)
        assert logits == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def with_breakers(model: Model) -> Iterator[Native]:
    sampling = Sampling(dry_multiplier=0.8)
    made = native_dry(model, sampling)

    def logits(ids: list[int], tokens: list[int]) -> np.ndarray:
        return native_logits(lib.llama_sampler_clone(made), tokens, ids)

    yield logits  # pyright: ignore[reportReturnType]  # ids instead of a sampling
    lib.llama_sampler_free(made)


@given(picked=TOKENS)
def test_with_the_usual_breakers(model: Model, with_breakers: Any, picked: list[int]) -> None:
    ids = [token for text in ("\n", ":", " the", " fox", " said", '."', " *", " red") for token in model.tokenize(text)]
    tokens = [ids[at % len(ids)] for at in picked]
    distinct = sorted(set(ids))
    dry = Dry(Sampling(dry_multiplier=0.8), lambda token: model.piece(token, special=True), max_tokens=1000)
    for token in tokens:
        dry.accept([token])
    logits = np.zeros(model.vocab_size, np.float32)
    dry.apply(logits)
    assert logits[distinct] == pytest.approx(with_breakers(distinct, tokens), rel=1e-5)


def test_a_breaker_may_be_spread_over_tokens() -> None:
    pieces = {1: b"a", 2: b"<", 3: b"br>", 4: b"c"}
    sampling = Sampling(dry_multiplier=1.0, dry_allowed_length=1, dry_sequence_breakers=("<br>",))

    def penalised(tokens: list[int]) -> set[int]:
        dry = Dry(sampling, pieces.__getitem__, max_tokens=100)
        dry.accept(tokens)
        logits = np.zeros(5, np.float32)
        dry.apply(logits)
        return set(np.flatnonzero(logits).tolist())

    assert penalised([1, 4, 1]) == {4}
    assert penalised([2, 3, 4, 2, 3]) == set(), "the repetition is only the breaker"
    assert penalised([2, 3, 1, 4, 2, 3, 1]) == {4}
    assert penalised([2, 1, 3, 2, 1]) == {3}


def test_a_long_loop_costs_no_more_than_its_length() -> None:
    dry = Dry(Sampling(dry_multiplier=1.0, dry_penalty_last_n=-1), lambda _: b"x", max_tokens=20_000)
    dry.accept([5] * 20_000)
    logits = np.zeros(8, np.float32)
    dry.apply(logits)
    assert logits[5] < -1e37
    assert np.isfinite(logits).all()


@given(TOKENS)
def test_suffix_lengths(tokens: list[int]) -> None:
    def common(end: int) -> int:
        return next((n for n in range(end + 1) if tokens[end - n] != tokens[-1 - n]), end + 1)

    assert suffix_lengths(np.array(tokens, np.int32)).tolist() == [common(end) for end in range(len(tokens) - 1)]
