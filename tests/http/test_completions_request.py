"""From a body of `/v1/completions` to payloads, and from tokens to the answer; pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.exceptions import ClientException

from api.openai.completions_call import CompletionCall, read_completion_call
from api.openai.completions_render import CompletionStream, text_completion
from api.openai.completions_schema import DEFAULT_MAX_TOKENS, MAX_ECHO, MAX_PROMPTS
from api.openai.label import CompletionLabel
from paddler.errors import EngineFailed, InvalidField
from paddler.wire.balancer import Finished, FinishReason, TokenLogprob, Tokens, Usage

USAGE = Usage(5, 2, 1)
HEAD = '{"id":"cmpl-p.1","object":"text_completion","created":7,"model":"m"'
SNOW = "☃".encode()


def read(**fields: Any) -> CompletionCall:
    return read_completion_call(json.dumps({"model": "m", "prompt": "p"} | fields).encode(), 9)


def events(data: bytes) -> list[str]:
    assert data.endswith(b"\n\n")
    return [event.removeprefix("data: ") for event in data.decode().split("\n\n")[:-1]]


@pytest.mark.parametrize(
    ("prompt", "texts", "ids"),
    [
        ("one", ["one"], [None]),
        (["one", "two"], ["one", "two"], [None, None]),
        ([1, 2, 3], [None], [(1, 2, 3)]),
        ([[1, 2], [3]], [None, None], [(1, 2), (3,)]),
    ],
)
def test_a_prompt_is_a_text_or_tokens_or_several(prompt: Any, texts: list[str | None], ids: list[Any]) -> None:
    call = read(prompt=prompt)
    assert [one.prompt for one in call.prompts] == texts
    assert [one.prompt_ids for one in call.prompts] == ids
    assert call.is_single == (len(texts) == 1)


def test_defaults_are_those_of_openai() -> None:
    call = read()
    (payload,) = call.prompts
    assert (payload.max_tokens, payload.sampling.seed, payload.logprobs) == (DEFAULT_MAX_TOKENS, 9, None)
    assert (call.n, call.best_of, call.stream, call.has_echo, call.has_logprobs) == (1, 1, False, False, False)
    assert read(n_predict=-1).prompts[0].max_tokens is None
    assert read(max_tokens=0).prompts[0].max_tokens == 0


def test_what_a_chat_can_ask_for_a_completion_can() -> None:
    call = read(
        stop=["a", "b"], temperature=0.5, min_p=0.2, logit_bias={"5": -100}, seed=3, grammar='root ::= "a"', logprobs=2,
        suffix="s", prompt_cache_key="k", user="u", stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    (payload,) = call.prompts
    assert (payload.stop, payload.grammar, payload.logprobs, payload.suffix) == (("a", "b"), 'root ::= "a"', 2, "s")
    sampling = payload.sampling
    assert (sampling.temperature, sampling.min_p, sampling.logit_bias, sampling.seed) == (0.5, 0.2, ((5, -100.0),), 3)
    assert (call.stream, call.include_usage, call.cache_key, call.has_logprobs) == (True, True, "k", True)


def test_candidates_are_judged_by_log_probabilities_that_nobody_asked_to_see() -> None:
    call = read(n=2, best_of=3)
    assert (call.n, call.best_of, call.prompts[0].logprobs, call.has_logprobs) == (2, 3, 0, False)
    assert read(n=2, best_of=3, logprobs=4).prompts[0].logprobs == 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": [1, [1]]}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["a"] * (MAX_PROMPTS + 1)}, "prompt"),
        ({"prompt": ["a"] * 40, "n": 4}, "prompt"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"n": 1, "best_of": 2, "stream": True}, "best_of"),
        ({"n": 2, "background": True}, "background"),
        ({"prompt": ["a", "b"], "background": True}, "background"),
        ({"prompt": [1], "suffix": "s"}, "suffix"),
        ({"suffix": "s", "echo": True}, "echo"),
        ({"logprobs": 1, "echo": True}, "echo"),
        ({"prompt": "a" * (MAX_ECHO + 1), "echo": True}, "echo"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": 1, "n_predict": 2}, "n_predict"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar"),
        ({"messages": []}, "messages"),
        ({"samplers": []}, "samplers"),
        ({"best": 1}, "best"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read(**fields)
    assert refused.value.param == param


def test_what_is_no_json_is_a_clients_error() -> None:
    with pytest.raises(ClientException):
        read_completion_call(b"{", 0)


def test_a_golden_stream() -> None:
    stream = CompletionStream("p.1", CompletionLabel("m", 7, include_usage=True, echo="Once"))
    assert events(stream.tokens(" upon") + stream.tokens("") + stream.tokens(" a\n")) == [
        HEAD + ',"choices":[{"index":0,"text":"Once upon","logprobs":null,"finish_reason":null}],"usage":null}',
        HEAD + ',"choices":[{"index":0,"text":" a\\n","logprobs":null,"finish_reason":null}],"usage":null}',
    ]
    usage = '{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":1}}'
    assert events(stream.finished(FinishReason.LENGTH, USAGE)) == [
        HEAD + ',"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"usage":null}',
        HEAD + f',"choices":[],"usage":{usage}}}',
        "[DONE]",
    ]


def test_without_a_token_the_echo_comes_with_the_end_and_an_error_ends_the_stream() -> None:
    stream = CompletionStream("p.1", CompletionLabel("m", 7, echo="Once"))
    assert events(stream.finished(FinishReason.LENGTH, USAGE)) == [
        HEAD + ',"choices":[{"index":0,"text":"Once","logprobs":null,"finish_reason":"length"}]}',
        "[DONE]",
    ]
    failed = events(CompletionStream("p.1", CompletionLabel("m", 7)).failed(EngineFailed("no")))
    assert json.loads(failed[0])["error"]["code"] == "engine_failed"
    assert failed[1:] == ["[DONE]"]


def test_who_goes_on_has_had_the_echo() -> None:
    stream = CompletionStream("p.1", CompletionLabel("m", 7, echo="Once"), earlier=[Tokens((1,), " upon")])
    assert json.loads(events(stream.tokens(" a"))[0])["choices"][0]["text"] == " a"


def test_log_probabilities_have_the_old_form() -> None:
    """Half characters are named by their bytes, and stand where their character does."""
    one = TokenLogprob(b"a", -0.5, ((b"b", -0.25), (b"a", -0.5)))
    halves = (TokenLogprob(SNOW[:1], -1.0), TokenLogprob(SNOW[1:], -float("inf"), ((SNOW[1:], -float("inf")),)))
    said = [Tokens((1,), "a", None, (one,)), Tokens((2, 3), "☃", None, halves), Tokens((4,), "")]
    label = CompletionLabel("m", 7, has_logprobs=True)
    whole = text_completion("p.1", said, Finished(FinishReason.STOP, USAGE), label)
    (choice,) = whole["choices"]
    assert choice["text"] == "a☃"
    assert choice["logprobs"] == {
        "tokens": ["a", "bytes:\\xe2", "bytes:\\x98\\x83"],
        "token_logprobs": [-0.5, -1.0, -9999.0],
        "top_logprobs": [{"b": -0.25, "a": -0.5}, {"bytes:\\xe2": -1.0}, {"bytes:\\x98\\x83": -9999.0}],
        "text_offset": [0, 1, 1],
    }
    stream = CompletionStream("p.1", label)
    parts = [json.loads(events(stream.tokens(frame.text, frame.logprobs))[0]) for frame in said[:2]]
    told = choice["logprobs"]
    assert told is not None
    for name, values in told.items():
        assert [one for part in parts for one in part["choices"][0]["logprobs"][name]] == values
    later = CompletionStream("p.1", label, earlier=said[:1])
    (event,) = events(later.tokens(said[1].text, said[1].logprobs))
    assert json.loads(event)["choices"][0]["logprobs"]["text_offset"] == [1, 1]
