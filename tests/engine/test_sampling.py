"""Sampling over the logits of a real prompt, compared with the definitions written out in numpy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.errors import InvalidField
from paddler.payload import check_sampling
from paddler.wire.agent import Sampling
from workers.agent.llama import Context, LogitArray, Model
from workers.agent.sampling import Penalties, Sampler, position_seed

PLAIN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "penalty_last_n": 0, "temperature": 1.0}


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
def draw(context: Context, logits: LogitArray) -> Draw:
    kept = logits.copy()

    def draw(num: int = 300, accepted: tuple[int, ...] = (), **fields: float) -> Counter[int]:
        drawn: Counter[int] = Counter()
        sampler = Sampler(Sampling(**{**PLAIN, **fields}))  # pyright: ignore[reportArgumentType]  # by name
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
    from workers.agent.llama import SamplerChain, lib

    chain = SamplerChain(top_k=0, top_p=1, min_p=0, temperature=1)
    chain.reseed(0xFFFFFFFF)
    last = lib.llama_sampler_chain_get(chain.pointer, lib.llama_sampler_chain_n(chain.pointer) - 1)
    assert lib.llama_sampler_get_seed(last) == 0xFFFFFFFE


def test_position_seeds_differ() -> None:
    seeds = {position_seed(seed, n) for seed in (0, 1, 2, 2**32 - 1) for n in range(5000)}
    assert len(seeds) > 19_980, "at most a few accidental collisions"
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_suppressed_tokens_are_never_drawn(context: Context, logits: LogitArray) -> None:
    best = int(logits.argmax())
    sampler = Sampler(Sampling(temperature=0, penalty_last_n=0), suppressed=(best,))
    assert sampler.draw(context, context.batch.size - 1, logits, 0) != best


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
     ("penalty_presence", math.nan), ("seed", -1)],
)  # fmt: skip
def test_values_that_native_code_would_not_survive_are_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidField) as caught:
        check_sampling(Sampling(**{field: value}))  # pyright: ignore[reportArgumentType]  # by name
    assert caught.value.param == field
