"""What a server tells becomes the events of any engine, and a text that is read as models' texts are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fake_upstream import FakeUpstream, always, chunk, for_ever, telling

from paddler.chat_formats.reading import Said, read_all
from paddler.engine import Job
from paddler.testing.engine_run import EngineRun, embed_job, make_job
from paddler.wire.agent import Generate, ImagePart, Message, Rerank, Sampling, TextPart, Tool, ToolCall
from paddler.wire.balancer import UNKNOWN_TOKEN, FinishReason, TextFormat, Usage

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc0f01f0005000201a5c9a5e40000000049454e44ae426082"
)
NewRun = Callable[..., EngineRun]
WEATHER = Tool("weather", '{"type": "object", "properties": {"city": {"type": "string"}}}', "Tells it.")


def chat_job(text: str = "hi", **fields: Any) -> Job:
    return Job(request_id="a", payload=Generate(messages=(Message("user", text),), **fields))


def said_by(run: EngineRun, job: Job) -> Said:
    [outcome] = run.finish(job)
    format = next((one.format for one in run.retained.get("a", ()) if one.format), TextFormat())
    return read_all(format, [outcome.text])


def call(index: int, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"tool_calls": [{"index": index, "id": "x", "type": "function", "function": function}]}


def test_it_finds_out_what_the_server_has(new_run: NewRun) -> None:
    info = new_run().engine.info
    assert (info.model, info.slots_total, info.slots_usable, info.context_size) == ("tiny", 2, 2, 4096)
    assert info.abilities == ("generate",)
    assert info.issues == ()


def test_pieces_stream_and_are_counted_as_the_server_counts(server: FakeUpstream, run: EngineRun) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
    server.routes["/v1/chat/completions"] = telling("he", "llo", usage=usage)
    [outcome] = run.finish(chat_job())
    assert [piece for piece in outcome.pieces if piece] == ["he", "llo"]
    assert outcome.ids == [UNKNOWN_TOKEN] * 2, "only the text is known of them"
    assert outcome.done.usage == Usage(9, 4, 5)
    assert outcome.done.reason is FinishReason.STOP


def test_llama_servers_timings_stand_in_for_usage(server: FakeUpstream, run: EngineRun) -> None:
    async def answer(asked: Any) -> None:
        await asked.begin()
        await asked.event(chunk(prompt_progress={"total": 8, "cache": 6, "processed": 8, "time_ms": 1}))
        await asked.event(chunk({"content": "x"}))
        await asked.event(chunk(finish="length", timings={"prompt_n": 2, "cache_n": 6, "predicted_n": 3}))
        await asked.event(b"[DONE]")

    server.routes["/v1/chat/completions"] = answer
    [outcome] = run.finish(chat_job(max_tokens=3))
    assert (outcome.done.usage, outcome.done.reason) == (Usage(8, 3, 6), FinishReason.LENGTH)
    first, last = run.retained["a"]
    assert (first.num_tokens, first.num_cached) == (8, 6), "its cache is told of before the first token"
    assert last.num_tokens == 11


def test_reasoning_and_calls_are_told_apart_again(server: FakeUpstream, run: EngineRun) -> None:
    server.routes["/v1/chat/completions"] = telling(
        {"reasoning_content": "Let me "},
        {"reasoning_content": "see."},
        {"content": "Looking"},
        call(0, "weather"),
        call(0, arguments='{"city": '),
        call(0, arguments='"Oslo"}'),
        call(1, "weather", '{"city": "Rome"}'),
        finish="tool_calls",
    )
    said = said_by(run, chat_job(tools=(WEATHER,)))
    assert (said.reasoning, said.content) == ("Let me see.", "Looking")
    assert said.calls == [("weather", '{"city": "Oslo"}'), ("weather", '{"city": "Rome"}')]
    assert said.has_whole_calls


def test_calls_that_come_whole_or_interleaved(server: FakeUpstream, run: EngineRun) -> None:
    server.routes["/v1/chat/completions"] = telling(
        call(0, "weather", '{"city"'), call(1, "weather", '{"city": "Rome"'), call(0, arguments=': "Oslo"}'),
        call(1, arguments="}"), call(2, "now"), finish="tool_calls",
    )  # fmt: skip
    said = said_by(run, chat_job(tools=(WEATHER, Tool("now", "{}"))))
    assert said.calls == [("weather", '{"city": "Oslo"}'), ("weather", '{"city": "Rome"}'), ("now", "{}")]


def test_a_call_that_is_cut_off_stays_so(server: FakeUpstream, run: EngineRun) -> None:
    server.routes["/v1/chat/completions"] = telling(call(0, "weather", '{"city": "Os'), finish="length")
    said = said_by(run, chat_job(tools=(WEATHER,)))
    assert (said.calls, said.has_whole_calls) == ([("weather", '{"city": "Os')], False)


def test_what_only_looks_like_a_call_is_text(server: FakeUpstream, run: EngineRun) -> None:
    server.routes["/v1/chat/completions"] = telling("Use <tool", "_call> tags", " and <b>")
    assert said_by(run, chat_job(tools=(WEATHER,))).content == "Use <tool_call> tags and <b>"


def test_log_probabilities_are_the_servers(server: FakeUpstream, run: EngineRun) -> None:
    top = [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -1.5, "bytes": [98]}]
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": top}

    async def answer(asked: Any) -> None:
        await asked.begin()
        await asked.event(
            {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [entry]}}], "usage": None}
        )
        await asked.event(chunk(finish="stop"))

    server.routes["/v1/chat/completions"] = answer
    [outcome] = run.finish(chat_job(logprobs=1))
    (token,) = outcome.logprobs
    assert (token.piece, token.logprob, token.top) == (b"a", -0.5, ((b"a", -0.5),))


def test_a_server_without_log_probabilities_is_no_silent_loss(run: EngineRun) -> None:
    [outcome] = run.finish(chat_job(logprobs=0))
    assert (outcome.rejected.code, outcome.rejected.param) == ("invalid_field", "logprobs")


def test_the_conversation_goes_on_as_it_came(server: FakeUpstream, run: EngineRun) -> None:
    messages = (
        Message("user", "look", parts=(TextPart("look"), ImagePart(PNG))),
        Message("assistant", "", tool_calls=(ToolCall("c1", "weather", '{"city":"Oslo"}'),)),
        Message("tool", "sunny", tool_call_id="c1"),
    )
    payload = Generate(
        messages=messages, tools=(WEATHER,), tool_choice="required", tool_name="weather", parallel_tool_calls=False,
        template_kwargs='{"x": 1}', enable_thinking=False, max_tokens=9, stop=("END",),
    )  # fmt: skip
    server.routes["/v1/chat/completions"] = telling(call(0, "weather", "{}"), finish="tool_calls")
    run.finish(Job(request_id="a", payload=payload))
    [asked] = server.generated()
    body = asked.body
    [text, image] = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "look"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert body["messages"][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert body["messages"][2] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}
    assert body["tools"][0]["function"]["name"] == "weather"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False
    assert body["chat_template_kwargs"] == {"enable_thinking": False, "x": 1}
    assert (body["max_tokens"], body["stop"], body["model"]) == (9, ["END"], "/models/tiny.gguf")


def test_a_form_goes_as_a_schema_to_a_chat_and_as_a_grammar_to_a_prompt(server: FakeUpstream, run: EngineRun) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form: dict[str, Any] = {"grammar": 'root ::= "x"', "schema": json.dumps(schema)}
    run.finish(chat_job(**form), Job(request_id="b", payload=Generate(prompt="x", **form)))
    by_path = {one.path: one.body for one in server.generated()}
    assert by_path["/v1/chat/completions"]["response_format"]["json_schema"]["schema"] == schema
    assert "grammar" not in by_path["/v1/chat/completions"]
    assert by_path["/v1/completions"]["grammar"] == 'root ::= "x"'


def test_sampling_is_told_in_the_servers_words(server: FakeUpstream, run: EngineRun) -> None:
    sampling = Sampling(
        temperature=0.3, seed=5, penalty_repeat=1.2, dry_multiplier=0.5, logit_bias=((7, -1.0), ("x", 2.0))
    )
    run.finish(chat_job(sampling=sampling))
    body = server.generated()[0].body
    assert (body["temperature"], body["top_k"], body["top_p"], body["seed"]) == (0.3, 80, 0.8, 5)
    assert (body["repeat_penalty"], body["dry_multiplier"]) == (1.2, 0.5)
    assert body["logit_bias"] == [[7, -1.0], ["x", 2.0]]
    assert not {"presence_penalty", "repeat_last_n", "mirostat"} & set(body), "nobody asked for them"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"sampling": Sampling(top_k=7)}, "top_k"),
        ({"sampling": Sampling(penalty_repeat=1.3)}, "repeat_penalty"),
        ({"sampling": Sampling(mirostat=2)}, "mirostat"),
        ({"sampling": Sampling(logit_bias=(("x", 1.0),))}, "logit_bias"),
        ({"grammar": 'root ::= "x"'}, "grammar"),
        ({"template_kwargs": '{"x": 1}'}, "chat_template_kwargs"),
        ({"beginning": "Well,"}, "messages"),
    ],
)
def test_what_a_server_does_not_know_is_refused_by_name(fields: dict[str, Any], param: str, new_run: NewRun) -> None:
    with FakeUpstream(slots=None, owner="somebody") as plain:
        run = new_run(url=plain.url, slots=1)
        [outcome] = run.finish(chat_job(**fields))
        assert (outcome.rejected.code, outcome.rejected.status, outcome.rejected.param) == ("invalid_field", 400, param)
        assert "openai" in outcome.rejected.message
        assert plain.generated() == []
        run.engine.close()


def test_raw_prompts_and_their_tokens(server: FakeUpstream, run: EngineRun) -> None:
    server.routes["/v1/completions"] = telling(" time")
    [outcome] = run.finish(make_job("a", "Once upon a"))
    assert outcome.text == " time"
    run.finish(Job(request_id="b", payload=Generate(prompt_ids=(1, 2, 3))))
    assert [one.body["prompt"] for one in server.generated()] == ["Once upon a", [1, 2, 3]]


def test_embeddings_in_calls_of_thirty_two(server: FakeUpstream, new_run: NewRun) -> None:
    async def embed(asked: Any) -> None:
        texts = [asked.body["input"]] if isinstance(asked.body["input"], str) else asked.body["input"]
        data = [{"index": n, "embedding": [float(len(text)), 1.0]} for n, text in reversed(list(enumerate(texts)))]
        await asked.json({"data": data, "usage": {"prompt_tokens": 3 * len(texts)}})

    server.routes["/v1/embeddings"] = embed
    run = new_run()
    assert run.engine.info.abilities == ("generate", "embed")
    [outcome] = run.finish(embed_job("a", *("xy" for _ in range(40)), normalization="none"))
    assert (len(outcome.vectors), len(set(outcome.steps))) == (40, 2)
    assert outcome.done.usage == Usage(120)
    [rest] = run.finish(embed_job("b", "a", "b", embedded=(3,), vector_size=2))
    assert len(rest.vectors) == 1, "the first is there already"
    [other] = run.finish(embed_job("c", "a", "b", embedded=(3,), vector_size=5))
    assert other.rejected.code == "engine_failed"


def test_ranking(server: FakeUpstream, new_run: NewRun) -> None:
    async def rank(asked: Any) -> None:
        found = [{"index": n, "relevance_score": -n} for n, _ in enumerate(asked.body["documents"])]
        await asked.json({"results": found})

    server.routes["/v1/rerank"] = rank
    run = new_run()
    [outcome] = run.finish(Job(request_id="a", payload=Rerank(query="q", documents=("x", "y"))))
    assert len(outcome.vectors) == 2


def test_what_it_cannot_is_refused(run: EngineRun) -> None:
    [outcome] = run.finish(embed_job("a", "x"))
    assert (outcome.rejected.code, outcome.rejected.param) == ("invalid_field", "model")


def test_cancel_closes_the_connection(server: FakeUpstream, run: EngineRun) -> None:
    server.routes["/v1/chat/completions"] = for_ever("one", "two")
    outcome = run.start(chat_job())
    run.step_until(lambda: len(outcome.ids) == 2)
    run.engine.cancel("a")
    run.step()
    assert (outcome.done.reason, outcome.done.usage.completion_tokens) == (FinishReason.CANCELLED, 2)
    assert run.engine.num_free_slots == 2
    [asked] = server.generated()
    other = run.start(Job(request_id="b", payload=Generate(messages=(Message("user", "x"),))))
    run.step_until(lambda: asked.is_left and bool(other.ids))


def test_slots_and_names_are_as_given(new_run: NewRun) -> None:
    info = new_run(slots=1, model_name="mine").engine.info
    assert (info.model, info.slots_total) == ("mine", 1)


def test_a_key_and_a_host_are_sent(new_run: NewRun) -> None:
    with FakeUpstream(key="sesame") as guarded:
        run = new_run(url=guarded.url + "/v1/", key="sesame", host="models.example.org")
        assert run.finish(chat_job())[0].done.reason is FinishReason.STOP
        assert {one.headers["host"] for one in guarded.asked} == {"models.example.org"}
        run.engine.close()


def test_a_route_that_is_gone(server: FakeUpstream, new_run: NewRun) -> None:
    del server.routes["/v1/completions"]
    [outcome] = new_run().finish(make_job("a", "Once"))
    assert outcome.rejected.param == "prompt"
    server.routes["/v1/chat/completions"] = always({}, 404)
