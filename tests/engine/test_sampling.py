"""Sampling over the logits of a real prompt, compared with the definitions written out in numpy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paddler.errors import InvalidField
from paddler.payload import SAMPLING_RANGES, check_sampling
from paddler.wire.agent import Sampling
from workers.agent.context import Context
from workers.agent.llama import LogitArray, Model
from workers.agent.samplers import Mirostat, SamplerChain
from workers.agent.sampling import Penalties, Sampler, position_seed

NO_PROMPT = np.zeros(0, np.int32)
PLAIN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "penalty_last_n": 0, "temperature": 1.0}


@pytest.fixture(scope="session")
def model(whole_model: Model) -> Model:
    return whole_model


@pytest.fixture(scope="session")
def context(model: Model) -> Iterator[Context]:
    made = Context(model, num_sequences=1, context_size=256, max_batch=64, num_threads=1)
    tokens = model.tokenize("My favourite colours are red, green and")
    made.batch.add(tokens, 0, 0, wants_logits=True)
    made.decode()
    yield made
    made.close()


@pytest.fixture
def logits(context: Context) -> Iterator[LogitArray]:
    """The row in the context's own buffer, which samplers change; restored afterwards."""
    row = context.logits()[0]
    kept = row.copy()
    yield row
    row[:] = kept


Draw = Callable[..., Counter[int]]


@pytest.fixture
def draw(model: Model, context: Context, logits: LogitArray) -> Draw:
    kept = logits.copy()

    def draw(num: int = 300, accepted: tuple[int, ...] = (), **fields: Any) -> Counter[int]:
        drawn: Counter[int] = Counter()
        sampler = Sampler(Sampling(**{**PLAIN, **fields}), model, prompt=NO_PROMPT, max_tokens=256)
        sampler.accept(accepted)
        for n in range(num):
            logits[:] = kept
            drawn[sampler.draw(context, context.batch.size - 1, logits, n)] += 1
        sampler.close()
        return drawn

    return draw


def probabilities(logits: LogitArray, temperature: float = 1.0) -> np.ndarray:
    scaled = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return scaled / scaled.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_draws_follow_the_distribution(draw: Draw, logits: LogitArray, temperature: float) -> None:
    """One draw a position: the seeds of neighbouring positions must be as good as independent."""
    num = 1500
    drawn = draw(num, top_k=64, temperature=temperature)
    kept = np.sort(np.argpartition(logits, -64)[-64:])
    likely = probabilities(logits[kept], temperature)
    for token, p in zip(kept, likely, strict=True):
        assert abs(drawn[int(token)] / num - p) < 4.5 * math.sqrt(p * (1 - p) / num) + 1 / num


# Truncation comes before the temperature, so a hot draw is nearly uniform over what truncation left.
HOT = 500.0


def test_top_k(draw: Draw, logits: LogitArray) -> None:
    assert set(draw(top_k=3, temperature=HOT)) == set(np.argsort(logits)[-3:].tolist())


def test_top_p(draw: Draw, logits: LogitArray) -> None:
    """The fewest likely tokens that together reach top_p: here put between the fourth and the fifth sum."""
    order = np.argsort(-logits)
    sums = np.cumsum(probabilities(logits)[order])
    assert set(draw(top_p=(sums[3] + sums[4]) / 2, temperature=HOT)) == set(order[:5].tolist())


def test_min_p(draw: Draw, logits: LogitArray) -> None:
    """Tokens at least min_p times as likely as the best: here put between the fifth and the sixth."""
    order = np.argsort(-logits)
    ratios = probabilities(logits)[order] / probabilities(logits).max()
    assert set(draw(min_p=(ratios[4] + ratios[5]) / 2, temperature=HOT)) == set(order[:5].tolist())


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-9])
def test_temperature_zero_is_greedy(draw: Draw, logits: LogitArray, temperature: float) -> None:
    assert draw(3, temperature=temperature) == {int(logits.argmax()): 3}


def test_seeds(draw: Draw) -> None:
    assert draw(50, seed=3) == draw(50, seed=3)
    assert draw(50, seed=3) != draw(50, seed=4)


def test_the_seed_that_llama_cpp_takes_for_random_is_not_passed_on() -> None:
    """0xFFFFFFFF would draw differently each time; found by search for a position whose mixed seed is that."""
    from workers.agent.llama import lib

    chain = SamplerChain(Sampling(**PLAIN))
    chain.reseed(0xFFFFFFFF, 0)
    last = lib.llama_sampler_chain_get(chain.pointer, lib.llama_sampler_chain_n(chain.pointer) - 1)
    assert lib.llama_sampler_get_seed(last) == 0xFFFFFFFE


def test_position_seeds_differ() -> None:
    seeds = {position_seed(seed, n) for seed in (0, 1, 2, 2**32 - 1) for n in range(5000)}
    assert len(seeds) > 19_980, "at most a few accidental collisions"
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_suppressed_tokens_are_never_drawn(
    draw: Draw, model: Model, logits: LogitArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = int(logits.argmax())
    monkeypatch.setattr(model, "suppressed", (best,))
    assert best not in draw(1, temperature=0)


def test_a_bias_is_added_to_the_logit(draw: Draw, logits: LogitArray) -> None:
    first, second = np.argsort(-logits)[:2].tolist()
    gap = float(logits[first] - logits[second])
    assert draw(1, temperature=0, logit_bias=((second, gap - 0.01),)) == {first: 1}
    assert draw(1, temperature=0, logit_bias=((second, gap + 0.01),)) == {second: 1}
    assert draw(1, temperature=0, logit_bias=((second, gap / 2), (second, gap / 2 + 0.01))) == {second: 1}


def test_a_text_with_a_bias_means_its_tokens(draw: Draw, model: Model, logits: LogitArray) -> None:
    best = int(logits.argmax())
    assert best not in draw(1, temperature=0, logit_bias=((model.pieces[best].decode(), -100.0),))


def test_minus_100_bans_whatever_the_others_are(draw: Draw, model: Model, logits: LogitArray) -> None:
    best = int(logits.argmax())
    others = tuple((token, -99.0) for token in range(0, model.vocab_size, 100) if token != best)
    assert best not in draw(1, temperature=0, logit_bias=((best, -100.0), *others))


def test_tokens_that_the_model_has_not_are_refused(draw: Draw, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidField, match="this model has 49152 tokens") as caught:
        draw(1, logit_bias=((model.vocab_size, 1.0),))
    assert caught.value.param == "logit_bias"
    monkeypatch.setattr(model, "suppressed", tuple(range(1, model.vocab_size)))
    with pytest.raises(InvalidField, match="bans every token"):
        draw(1, logit_bias=((0, -100.0),))


def test_ignore_eos_bans_what_ends_the_output(
    draw: Draw, model: Model, logits: LogitArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = int(logits.argmax())
    monkeypatch.setattr(model, "end_tokens", frozenset({best}))
    assert draw(1, temperature=0) == {best: 1}
    assert best not in draw(1, temperature=0, ignore_eos=True)


def test_top_n_sigma(draw: Draw, logits: LogitArray) -> None:
    """Tokens within n standard deviations of the best one."""
    order = np.argsort(-logits)
    gap = (logits[order[0]] - (logits[order[3]] + logits[order[4]]) / 2) / logits.std()
    assert set(draw(top_n_sigma=float(gap), temperature=HOT)) == set(order[:4].tolist())


@pytest.mark.parametrize("banned", [False, True], ids=["", "with a token of probability 0"])
def test_typical_p(draw: Draw, logits: LogitArray, banned: bool) -> None:
    """The fewest tokens that together reach p, those first whose surprise is nearest to the mean one."""
    bias = ((0, -100.0),) if banned else ()
    p = probabilities(logits[1:] if banned else logits)
    order = np.argsort(np.abs(-np.log(p) - (-(p * np.log(p)).sum())))
    sums = np.cumsum(p[order])
    at = int(np.argmax(sums > 0.05))
    expected = set((order[: at + 1] + banned).tolist())
    assert set(draw(typical_p=float(sums[at] - 1e-4), temperature=HOT, logit_bias=bias)) <= expected


def test_xtc(draw: Draw, logits: LogitArray) -> None:
    """Of the tokens above the threshold only the least likely one is left, as often as xtc_probability says."""
    order, p = np.argsort(-logits), np.sort(probabilities(logits))[::-1]
    threshold = float((p[2] + p[3]) / 2)
    always = draw(xtc_probability=1.0, xtc_threshold=threshold, top_k=3, temperature=HOT)
    assert set(always) == {int(order[2])}
    half = draw(1000, xtc_probability=0.5, xtc_threshold=threshold, top_k=3, temperature=HOT)
    assert half[int(order[2])] == pytest.approx(1000 * (0.5 + 0.5 / 3), abs=80)
    assert draw(50, xtc_probability=0.5, xtc_threshold=threshold, seed=3) == draw(
        50, xtc_probability=0.5, xtc_threshold=threshold, seed=3
    )


@pytest.mark.parametrize(
    "fields", [{"top_p": 0.0}, {"min_p": 1.0}, {"typical_p": 0.0}], ids=lambda fields: next(iter(fields))
)
def test_min_keep(draw: Draw, fields: dict[str, float]) -> None:
    assert len(draw(min_keep=4, temperature=HOT, **fields)) == 4


def test_dynamic_temperature_is_between_its_ends(draw: Draw, logits: LogitArray) -> None:
    """The exponent moves it: 0 is the hot end, a large one the cold end."""
    kept = np.sort(np.argpartition(logits, -8)[-8:])
    for exponent, temperature in ((0.0, 1.5), (100.0, 0.5)):
        drawn = draw(1500, top_k=8, temperature=1.0, dynatemp_range=0.5, dynatemp_exponent=exponent)
        for token, p in zip(kept, probabilities(logits[kept], temperature), strict=True):
            assert abs(drawn[int(token)] / 1500 - p) < 4.5 * math.sqrt(p * (1 - p) / 1500) + 1 / 1500
    assert draw(3, temperature=0.0, dynatemp_range=0.5, dynatemp_exponent=100.0) == {int(logits.argmax()): 3}


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_brings_the_surprise_to_tau(model: Model, logits: LogitArray, version: int) -> None:
    mirostat = Mirostat(Sampling(mirostat=version, mirostat_tau=2.0, temperature=1.0), model.vocab_size)
    p = probabilities(logits)
    surprises = [-math.log2(p[mirostat.draw(logits, position_seed(1, n))]) for n in range(300)]
    assert sum(surprises[100:]) / 200 == pytest.approx(2.0, abs=0.5)
    mirostat.close()


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_goes_on_from_its_mu(model: Model, logits: LogitArray, version: int) -> None:
    sampling = Sampling(mirostat=version, temperature=1.0)
    first = Mirostat(sampling, model.vocab_size)
    for n in range(5):
        first.draw(logits, n)
    second = Mirostat(sampling, model.vocab_size, first.mu)
    assert [first.draw(logits, n) for n in range(20)] == [second.draw(logits, n) for n in range(20)]
    first.close()
    second.close()


@pytest.mark.parametrize("field", ["penalty_repeat", "penalty_presence", "penalty_frequency"])
def test_each_penalty_makes_an_accepted_token_less_likely(draw: Draw, logits: LogitArray, field: str) -> None:
    best = int(logits.argmax())
    before = draw(temperature=0, num=1)
    after = draw(temperature=0, num=1, accepted=(best,), penalty_last_n=-1, **{**NEUTRAL, field: 5.0})
    assert before == {best: 1}
    assert best not in after


NEUTRAL = {"penalty_repeat": 1.0, "penalty_presence": 0.0, "penalty_frequency": 0.0}


@given(
    accepted=st.lists(st.integers(0, 9), max_size=40),
    last_n=st.sampled_from([-1, 1, 3, 10, 64]),
    repeat=st.sampled_from([0.5, 1.0, 1.3]),
    frequency=st.sampled_from([-0.5, 0.0, 0.7]),
    presence=st.sampled_from([0.0, 0.8]),
)
def test_penalties_are_those_of_llama_cpp(
    accepted: list[int], last_n: int, repeat: float, frequency: float, presence: float
) -> None:
    import ctypes

    from workers.agent.llama import lib

    logits = np.linspace(-3, 3, 10).astype(np.float32)
    native = lib.llama_sampler_init_penalties(10, last_n if last_n >= 0 else 1000, repeat, frequency, presence)
    candidates = (lib.llama_token_data * 10)(*((token, float(logit), 0) for token, logit in enumerate(logits)))
    for token in accepted:
        lib.llama_sampler_accept(native, token)
    array = lib.llama_token_data_array(data=candidates, size=10, selected=-1, sorted=False)
    lib.llama_sampler_apply(native, ctypes.byref(array))
    lib.llama_sampler_free(native)
    ours = Penalties(
        Sampling(penalty_last_n=last_n, penalty_repeat=repeat, penalty_frequency=frequency, penalty_presence=presence)
    )
    for token in accepted:
        ours.accept(token)
    ours.apply(logits)
    assert logits == pytest.approx([candidate.logit for candidate in candidates], rel=1e-5, abs=1e-6)


def extremes(name: str) -> st.SearchStrategy[float]:
    low, high = SAMPLING_RANGES[name]
    ends = [low, high, getattr(Sampling(), name), (low + high) / 2, low + (high - low) * 1e-3]
    is_whole = isinstance(getattr(Sampling(), name), int)
    return st.sampled_from([int(end) if is_whole else float(end) for end in ends if math.isfinite(end)])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    fields=st.fixed_dictionaries({}, optional={name: extremes(name) for name in SAMPLING_RANGES}),
    bias=st.lists(st.tuples(st.integers(0, 300), st.sampled_from([-100.0, 0.5, 100.0])), max_size=5),
    temperature=st.sampled_from([0.0, 1e-4, 1.0, 1e3]),
)
@example(fields={"xtc_probability": 1.0, "xtc_threshold": 0.0}, bias=[(0, -100.0)], temperature=1e-4)
def test_native_code_survives_what_is_accepted(
    draw: Draw, fields: dict[str, Any], bias: list[tuple[int, float]], temperature: float
) -> None:
    """Infinite or undefined numbers would end the process."""
    fields |= {"logit_bias": tuple(bias), "temperature": temperature}
    check_sampling(Sampling(**{**PLAIN, **fields}))
    drawn = draw(3, accepted=(5, 6, 5, 6, 5), **fields)
    assert drawn.total() == 3
    assert not {token for token, value in bias if value == -100} & set(drawn)


def test_penalties_remember_more_tokens_than_they_had_room_for() -> None:
    penalties = Penalties(Sampling(penalty_repeat=1.0, penalty_presence=1.0, penalty_frequency=0.5))
    for token in range(1000):
        penalties.accept(token)
    logits = np.zeros(1200, np.float32)
    penalties.apply(logits)
    assert (logits[:1000] == -1.5).all()
    assert (logits[1000:] == 0).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", math.nan), ("temperature", math.inf), ("top_p", -0.1), ("top_p", 1.1), ("min_p", 2.0),
     ("top_k", 2**40), ("penalty_last_n", -2), ("penalty_repeat", 0.0), ("penalty_frequency", math.inf),
     ("penalty_presence", math.nan), ("seed", -1), ("min_keep", -1), ("min_keep", 2**31), ("typical_p", 1.1),
     ("typical_p", math.nan), ("top_n_sigma", math.inf), ("xtc_probability", 1.1), ("xtc_threshold", -0.1),
     ("dynatemp_range", -1.0), ("dynatemp_exponent", math.inf), ("dry_multiplier", -1.0), ("dry_base", 0.5),
     ("dry_base", math.nan), ("dry_allowed_length", -1), ("dry_penalty_last_n", -2), ("mirostat", 3), ("mirostat", -1),
     ("mirostat_tau", math.nan), ("mirostat_eta", 2.0), ("logit_bias", ((1, math.nan),)), ("logit_bias", ((1, 101.0),)),
     ("logit_bias", ((-1, 0.0),)), ("logit_bias", (("", 0.0),)), ("logit_bias", (("x" * 257, 0.0),)),
     ("logit_bias", ((1, 0.0),) * 1025), ("dry_sequence_breakers", ("",)), ("dry_sequence_breakers", ("x" * 41,)),
     ("dry_sequence_breakers", ("x",) * 17)],
)  # fmt: skip
def test_values_that_native_code_would_not_survive_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidField) as caught:
        check_sampling(Sampling(**{field: value}))
    assert caught.value.param == field
