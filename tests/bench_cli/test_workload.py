"""What is asked: the same for the same seed, of the wanted sizes, with what is to be shared shared."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from pathlib import Path

import pytest
from bench_calls import shape

from paddler.bench.arrivals import Arrival, arrivals
from paddler.bench.texts import WORDS, Texts
from paddler.bench.trace import BadTrace, Entry, Traced, read_trace
from paddler.bench.workload import Drawn, Span


def test_the_same_seed_asks_the_same_and_another_one_does_not() -> None:
    def some(seed: int) -> list[object]:
        drawn = Drawn(shape(turns=Span(1, 4), system_tokens=20, cancel_rate=0.5), Texts(seed, 1.0))
        return [drawn.conversation(number) for number in (0, 1, 7, 3)]

    assert some(1) == some(1)
    assert not [one for one in some(1) if one in some(2)]


def test_sizes_are_those_that_were_asked_for() -> None:
    drawn = Drawn(
        shape(prompt_tokens=Span(10, 30), output_tokens=Span(5, 6), turns=Span(2, 3), system_tokens=100), Texts(0, 2.0)
    )
    turns = [turn for number in range(60) for turn in drawn.conversation(number).turns]
    assert {turn.output_tokens for turn in turns} == {5, 6}
    assert {len(turn.text.split()) for turn in turns} <= set(range(5, 16))
    assert {len(drawn.conversation(number).turns) for number in range(60)} == {2, 3}
    assert len((drawn.conversation(0).system or "").split()) == 50


def test_conversations_share_so_many_system_prompts_and_nothing_else() -> None:
    drawn = Drawn(shape(system_tokens=50, num_systems=3), Texts(0, 1.0))
    conversations = [drawn.conversation(number) for number in range(60)]
    assert len({one.system for one in conversations}) == 3
    assert len({one.turns[0].text for one in conversations}) == 60


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 200), (0.25, 50)])
def test_so_many_clients_go_away(rate: float, expected: int) -> None:
    drawn = Drawn(shape(cancel_rate=rate), Texts(0, 1.0))
    left = sum(drawn.conversation(number).turns[0].is_left for number in range(200))
    assert left == pytest.approx(expected, abs=20 if 0 < rate < 1 else 0)


def test_no_word_is_there_twice() -> None:
    assert len(set(WORDS)) == len(WORDS) > 200


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert list(islice(arrivals(Arrival.CONSTANT, 4.0, 0), 4)) == [0.0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_exponential_gaps_of_the_rate() -> None:
    times = list(islice(arrivals(Arrival.POISSON, 5.0, 3), 4000))
    gaps = [late - early for early, late in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.2, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.08)
    assert times == list(islice(arrivals(Arrival.POISSON, 5.0, 3), 4000))
    assert times[:10] != list(islice(arrivals(Arrival.POISSON, 5.0, 4), 10))


def prompts(*entries: Entry, block_size: int = 4) -> list[list[str]]:
    traced = Traced(list(entries), Texts(0, 1.0), block_size, 0.0)
    found = [traced.conversation(number) for number in range(len(entries))]
    assert traced.conversation(len(entries)) is None
    return [one.turns[0].text.split() for one in found if one is not None]


def test_prompts_begin_alike_as_far_as_their_hash_ids_do() -> None:
    one, two, three = prompts(
        Entry(0, 11, 1, (5, 6, 7)), Entry(1, 12, 1, (5, 6, 9)), Entry(2, 6, 1, (6, 5)), block_size=4
    )
    assert (len(one), len(two), len(three)) == (11, 12, 6)
    assert one[:8] == two[:8]
    assert one[8:11] != two[8:11]
    assert three[:4] == one[4:8]
    assert three[4:] == one[:2], "the last block is the beginning of the whole one"


def test_what_has_no_hash_ids_shares_nothing() -> None:
    one, two = prompts(Entry(0, 9, 1), Entry(1, 9, 1, (3,)))
    assert len(one) == len(two) == 9
    assert one != two
    (again,) = prompts(Entry(0, 4, 1, (3,)))
    assert two[:4] == again


def test_a_trace_is_read_in_the_order_of_its_times_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [1, 2], "extra": "ignored"},
        {"timestamp": 1000, "input_length": 10, "output_length": 6},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_trace(path) == [Entry(0, 10, 6), Entry(2000, 600, 5, (1, 2))]
    assert read_trace(path, 1) == [Entry(0, 10, 6)]


GOOD = '{"timestamp": 0, "input_length": 1, "output_length": 1}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no lines"),
        (GOOD + "nonsense\n", "line 2 is no line of a Mooncake trace"),
        (GOOD + '{"timestamp": 0}\n', "line 2 is no line of a Mooncake trace: .*input_length"),
        (GOOD.replace('"input_length": 1', '"input_length": 0'), "line 1: input_length and output_length must be 1 to"),
        (GOOD.replace('"timestamp": 0', '"timestamp": -1'), "line 1: timestamp must be"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(BadTrace, match=words):
        read_trace(path)
