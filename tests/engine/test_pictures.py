"""Where images lie among the tokens of a prompt, what stands for them there, and what the scheduler makes of it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from workers.agent.background import Background
from workers.agent.identities import MAX_KNOWN, Identities, digest_of
from workers.agent.pictures import Picture, Pictures
from workers.agent.scheduler import Scheduler, Work


class Chunk(Struct):
    num_tokens: int
    num_positions: int


def pictures(*spans: tuple[int, int, int]) -> Pictures:
    """Of (start, tokens, positions) each."""
    made = [Picture(cast(Any, Chunk(size, positions)), start, start + size) for start, size, positions in spans]
    return Pictures(made)


def test_runs_of_text_and_images() -> None:
    found = pictures((3, 4, 4), (7, 2, 2), (12, 1, 1))
    assert [found.end_of_run(index) for index in range(14)] == [3, 3, 3, 7, 7, 7, 7, 9, 9, 12, 12, 12, 13, None]
    assert [found.at(index) is not None for index in range(14)] == [3 <= n < 9 or n == 12 for n in range(14)]
    assert [len(found.upcoming(index)) for index in (0, 6, 7, 9, 13)] == [3, 3, 2, 1, 0]


def test_an_image_is_shared_as_a_whole() -> None:
    found = pictures((3, 4, 4), (7, 2, 2))
    assert [found.shareable(num) for num in range(11)] == [0, 1, 2, 3, 3, 3, 3, 7, 7, 9, 10]


def test_positions_behind_an_image_with_rows_and_columns() -> None:
    """4 x 3 tokens take four positions; within it they cannot be told apart by the first number."""
    found = pictures((2, 12, 4))
    assert [found.position(index) for index in (0, 1, 2, 8, 13, 14, 15)] == [0, 1, 2, 2, 2, 6, 7]
    assert [found.removable(num) for num in (1, 2, 3, 13, 14, 15)] == [1, 2, 2, 2, 14, 15]
    plain = pictures((2, 12, 12))
    assert all(plain.position(index) == index == plain.removable(index) for index in range(20))


@given(st.lists(st.tuples(st.binary(max_size=2), st.integers(0, 2)), max_size=30))
def test_one_id_for_one_image_alone(seen: list[tuple[bytes, int]]) -> None:
    identities = Identities()
    ids = {key: identities.of(*key) for key in seen}
    assert len(set(ids.values())) == len(ids)
    assert all(identities.of(*key) == value < -1 for key, value in ids.items())


def test_a_forgotten_image_gets_a_new_id() -> None:
    identities = Identities()
    first = [identities.of(bytes([0, *divmod(n, 256)]), 0) for n in range(MAX_KNOWN + 1)]
    again = identities.of(bytes(3), 0)
    assert again not in first
    assert len(identities._known) == MAX_KNOWN


def test_a_digest_is_of_pixels_and_shape() -> None:
    flat = np.arange(24, dtype=np.uint8)
    shapes = [(2, 4, 3), (4, 2, 3), (1, 8, 3)]
    assert len({digest_of(flat.reshape(shape)) for shape in shapes}) == 3
    assert digest_of(flat.reshape(2, 4, 3)) == digest_of(flat.reshape(2, 4, 3).copy())


def scheduler() -> Scheduler:
    return Scheduler(num_cells=4096, max_batch=512, prefill_token_s=0.001)


def chunks(*works: Work) -> dict[int, int]:
    return {chunk.key: chunk.num_tokens for chunk in scheduler().plan(works).chunks}


def work(key: int, num_total: int, **fields: Any) -> Work:
    return Work(key, num_total, is_admitted=True, **fields)


def test_a_chunk_ends_where_an_image_begins() -> None:
    assert chunks(work(0, 300, run_end=40), work(1, 300, run_end=20, is_image=True)) == {0: 40, 1: 20}


def test_who_waits_for_an_image_computes_nothing_and_keeps_nobody() -> None:
    assert chunks(work(0, 300, is_waiting=True, is_image=True), work(1, 100)) == {1: 100}


def test_an_image_that_must_be_whole_is_one_a_step() -> None:
    one, other = (work(key, 900, run_end=700, is_image=True, is_whole=True) for key in (0, 1))
    generating = work(2, 50, num_cached=49)
    prompt = work(3, 500)
    assert chunks(one, other, generating, prompt) == {0: 700, 2: 1}
    assert chunks(work(0, 60, run_end=50, is_image=True, is_whole=True), prompt)[0] == 50
    assert chunks(work(0, 60, run_end=50, is_image=True, is_whole=True), prompt)[3] > 100


def test_an_image_at_the_end_of_a_prompt_is_not_taken_for_a_token() -> None:
    assert chunks(work(0, 50, num_cached=49, is_image=True, run_end=50)) == {0: 1}


def test_background_calls_are_made_in_order_unless_cancelled() -> None:
    made: list[int] = []
    gate = threading.Event()
    background = Background("test")
    futures: list[Future[Any]] = [background.submit(lambda: gate.wait(10))]
    futures += [background.submit(lambda n=n: made.append(n)) for n in range(3)]
    assert futures[2].cancel()
    gate.set()
    assert futures[3].result(10) is None
    assert made == [0, 2]
    with pytest.raises(ZeroDivisionError):
        background.submit(lambda: 1 // 0).result(10)
    assert background.stop(10)


def test_a_call_that_hangs_keeps_nobody() -> None:
    gate = threading.Event()
    background = Background("test")
    background.submit(gate.wait)
    assert not background.stop(0.01)
    gate.set()
