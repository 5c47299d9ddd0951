"""From a body of `/v1/rerank` to tickets, and from scores to the answer; pure."""

from __future__ import annotations

import json
from struct import pack
from typing import Any

import pytest

from api.openai.label import RerankLabel
from api.openai.rerank import MAX_DOCUMENTS, RerankCall, read_rerank_call
from paddler.errors import EngineFailed, InvalidField
from paddler.wire.agent import Rerank
from paddler.wire.balancer import Usage

DOCUMENTS = ["a", "b", "c", "d"]
SCORES = [pack("<f", score) for score in (0.5, 2.0, -1.0, 2.0)]


def read(**fields: Any) -> RerankCall:
    return read_rerank_call(json.dumps({"model": "m", "query": "q", "documents": DOCUMENTS, **fields}).encode())


def render(call: RerankCall, scores: list[bytes] = SCORES) -> dict[str, Any]:
    return json.loads(b"".join(call.render("r", scores, Usage(prompt_tokens=9))))


def test_what_is_accepted() -> None:
    assert read() == RerankCall("m", "q", ("a", "b", "c", "d"))
    assert read(documents=["a", {"text": "b"}], top_n=1, return_documents=True) == RerankCall(
        "m", "q", ("a", "b"), 1, True
    )
    assert read(top_n=None, return_documents=None) == read(return_documents=False)
    assert len(read(documents=["x"] * MAX_DOCUMENTS).documents) == MAX_DOCUMENTS


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": ["q"]}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a", {"text": ""}]}, "documents[1]"),
        ({"documents": ["a", 7]}, "documents[1]"),
        ({"documents": [{"title": "a"}]}, "documents[0].title"),
        ({"documents": ["x"] * (MAX_DOCUMENTS + 1)}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"model": ""}, "model"),
        ({"rank_fields": ["a"]}, "rank_fields"),
    ],
)
def test_what_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read(**fields)
    assert refused.value.param == param


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidField, match="`documents` is required"):
        read_rerank_call(b'{"model": "m", "query": "q"}')


def test_the_best_comes_first_and_of_equals_the_first() -> None:
    assert render(read()) == {
        "id": "r",
        "object": "list",
        "model": "m",
        "results": [
            {"index": 1, "relevance_score": 2.0},
            {"index": 3, "relevance_score": 2.0},
            {"index": 0, "relevance_score": 0.5},
            {"index": 2, "relevance_score": -1.0},
        ],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }


def test_top_n_and_documents() -> None:
    assert [one["index"] for one in render(read(top_n=2))["results"]] == [1, 3]
    assert len(render(read(top_n=9))["results"]) == 4
    first = render(read(top_n=1, return_documents=True))["results"]
    assert first == [{"index": 1, "relevance_score": 2.0, "document": {"text": "b"}}]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (SCORES[:3], "4 documents gave 3 scores"),
        ([*SCORES[:3], pack("<f", float("nan"))], "something else"),
        ([*SCORES[:3], pack("<2f", 1, 2)], "something else"),
    ],
)
def test_what_is_no_score_for_each_is_no_answer(scores: list[bytes], words: str) -> None:
    with pytest.raises(EngineFailed, match=words):
        render(read(), scores)


def test_tickets_are_even_and_know_their_place() -> None:
    call = read(documents=[str(n) for n in range(50)])
    tickets = call.tickets(8, is_one=False)
    assert [(ticket.first, len(ticket.documents)) for ticket in tickets] == [(0, 16), (16, 17), (33, 17)]
    assert {ticket.query for ticket in tickets} == {"q"}
    assert [call.label(ticket) for ticket in tickets][1] == RerankLabel("m", 16)
    assert tickets[1].name_of(1) == "documents[17]"
    assert call.tickets(8, is_one=True) == [Rerank(query="q", documents=call.documents)]
