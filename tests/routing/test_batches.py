"""How a batch is cut: nothing twice, nothing missing, no part that is not worth it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.jobs.chains import chain_of, expected_output, pack_chain
from paddler.routing.batches import split_evenly
from paddler.wire.agent import Embed, Rerank


@pytest.mark.parametrize(
    ("num_items", "most", "sizes"),
    [(1, 4, [1]), (31, 4, [31]), (32, 4, [16, 16]), (100, 4, [25] * 4), (67, 8, [16, 17, 17, 17]), (500, 0, [500])],
)
def test_examples(num_items: int, most: int, sizes: list[int]) -> None:
    assert [len(part) for part in split_evenly(num_items, least=16, most=most)] == sizes


@given(st.integers(1, 3000), st.integers(1, 64), st.integers(0, 300))
def test_all_of_it_evenly(num_items: int, least: int, most: int) -> None:
    parts = split_evenly(num_items, least=least, most=most)
    assert [item for part in parts for item in part] == list(range(num_items))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert 1 <= len(parts) <= max(1, most)
    assert len(parts) == 1 or min(sizes) >= least


def test_a_ranking_is_as_long_as_the_query_with_each_document() -> None:
    payload = Rerank(query="x" * 10, documents=("y" * 400, "ü"))
    chain = chain_of(payload, "p")
    assert (chain.hashes, chain.num_bytes, expected_output(payload)) == ((), 422, 0)


def test_an_embedding_has_no_chain_and_no_output() -> None:
    payload = Embed(inputs=("x" * 400, "ü"))
    chain = chain_of(payload, "default")
    assert pack_chain(chain, 4.0) == b""
    assert (chain.num_bytes, expected_output(payload)) == (402, 0)
