"""vLLM and Ollama as their code and documents have them: found out, streamed, told apart from a llama-server.

Neither was run: `tests/support/fake_servers.py` says what its answers are made after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_servers import CHAT, COMPLETIONS, ollama, ollama_says, vllm, vllm_says
from fake_upstream import FakeUpstream, always

from paddler.chat_formats.reading import read_all
from paddler.engine import Job, ModelError
from paddler.testing.engine_run import EngineRun
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Message, Sampling, Tool
from paddler.wire.balancer import FinishReason, TextFormat, Usage

NewRun = Callable[..., EngineRun]
WEATHER = Tool("weather", '{"type": "object", "properties": {"city": {"type": "string"}}}', "Tells it.")


def chat_job(text: str = "hi", **fields: Any) -> Job:
    return Job(request_id="a", payload=Generate(messages=(Message("user", text),), **fields))


def raw_job() -> Job:
    return Job(request_id="a", payload=Generate(prompt="Once upon a"))


@pytest.fixture
def vllm_server() -> Iterator[FakeUpstream]:
    with vllm() as made:
        yield made


@pytest.fixture
def ollama_server() -> Iterator[FakeUpstream]:
    with ollama() as made:
        yield made


def test_what_vllm_is_and_can(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    run = new_run(url=vllm_server.url, slots=3)
    info = run.engine.info
    assert (info.model, info.slots_total, info.context_size, info.build) == ("Qwen3-0.6B", 3, 4096, "vllm")
    assert info.abilities == ("generate",)
    assert info.issues == ()


def test_vllm_streams_a_chat(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    """The first chunk has only the role, the last but one the reason, the last the usage."""
    vllm_server.routes[CHAT] = vllm_says("Hel", "lo", "!", cached_tokens=8)
    run = new_run(url=vllm_server.url, slots=1)
    [outcome] = run.finish(chat_job(sampling=Sampling(top_k=20, penalty_repeat=1.3, ignore_eos=True), max_tokens=9))
    assert (outcome.text, outcome.done.reason, outcome.done.usage) == ("Hello!", FinishReason.STOP, Usage(12, 3, 8))
    (asked,) = vllm_server.generated()
    assert asked.body["repetition_penalty"] == 1.3
    assert (asked.body["top_k"], asked.body["ignore_eos"], asked.body["max_tokens"]) == (20, True, 9)
    assert asked.body["stream_options"] == {"include_usage": True}


def test_vllm_says_what_has_stopped_it(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    vllm_server.routes[CHAT] = vllm_says("one", stop_reason="END")
    run = new_run(url=vllm_server.url, slots=1)
    [outcome] = run.finish(chat_job(stop=("END",)))
    assert (outcome.done.reason, outcome.done.stop) == (FinishReason.STOP, "END")
    vllm_server.routes[CHAT] = vllm_says("one", finish="length")
    [outcome] = run.finish(chat_job(max_tokens=1))
    assert outcome.done.reason is FinishReason.LENGTH


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_vllm_thinks_and_calls(vllm_server: FakeUpstream, new_run: NewRun, field: str) -> None:
    """A call's name comes first and its arguments in pieces; thoughts by the name of the newer or the older version."""
    begun = {"id": "chatcmpl-tool-1", "type": "function", "index": 0, "function": {"name": "weather", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": text}} for text in ('{"city": ', '"Rome"}')]
    vllm_server.routes[CHAT] = vllm_says(
        {field: "Let me see."}, *({"tool_calls": [one]} for one in (begun, *pieces)), finish="tool_calls"
    )
    run = new_run(url=vllm_server.url, slots=1)
    [outcome] = run.finish(chat_job(tools=(WEATHER,)))
    format = next((one.format for one in run.retained.get("a", ()) if one.format), TextFormat())
    said = read_all(format, [outcome.text])
    assert said.reasoning == "Let me see."
    assert said.calls == [("weather", '{"city": "Rome"}')]
    assert outcome.done.reason is FinishReason.STOP


def test_vllm_goes_on_with_an_answer(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    """By `continue_final_message`: nothing of what the client has comes again."""
    vllm_server.routes[CHAT] = vllm_says(" three")
    run = new_run(url=vllm_server.url, slots=1)
    job = Job(
        request_id="a",
        payload=Generate(messages=(Message("user", "count"),), max_tokens=5),
        resume_text="one two",
        num_foreign=2,
    )
    [outcome] = run.finish(job)
    assert (outcome.text, outcome.done.usage.completion_tokens) == (" three", 3)
    (asked,) = vllm_server.generated()
    assert asked.body["messages"][-1] == {"role": "assistant", "content": "one two"}
    assert (asked.body["continue_final_message"], asked.body["add_generation_prompt"]) == (True, False)
    assert asked.body["max_tokens"] == 3


def test_vllm_parts_tenants_in_its_cache(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    run = new_run(url=vllm_server.url, slots=1)
    run.finish(chat_job(cache_scope="alice"))
    assert vllm_server.generated()[0].body["cache_salt"] == "alice"


def test_vllm_takes_raw_prompts(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    vllm_server.routes[COMPLETIONS] = vllm_says(" time", "!")
    run = new_run(url=vllm_server.url, slots=1)
    [outcome] = run.finish(raw_job())
    assert (outcome.text, outcome.done.usage) == (" time!", Usage(12, 2, 0))
    run.finish(Job(request_id="b", payload=Generate(prompt_ids=(1, 2, 3))))
    assert [one.body["prompt"] for one in vllm_server.generated()] == ["Once upon a", [1, 2, 3]]


def test_an_engine_of_vllm_that_dies_under_way(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    """Its stream has an error in place of a chunk; the second try goes on behind the text that came."""
    answers = [vllm_says("one ", error="EngineCore encountered an issue"), vllm_says("two")]

    async def answer(asked: Any) -> None:
        await (answers.pop(0) if len(answers) > 1 else answers[0])(asked)

    vllm_server.routes[CHAT] = answer
    run = new_run(url=vllm_server.url, slots=1)
    [outcome] = run.finish(chat_job())
    assert outcome.text == "one two"
    assert vllm_server.generated()[1].body["continue_final_message"] is True


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (
            400,
            {
                "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
            "context_length_exceeded",
        ),
        (400, {"message": "top_k must be -1 or at least 1, got -5.", "type": "BadRequestError"}, "invalid_field"),
    ],
)
def test_what_vllm_refuses(
    vllm_server: FakeUpstream, new_run: NewRun, status: int, error: dict[str, Any], code: str
) -> None:
    for body in ({"error": error}, {"object": "error", **error}):  # as it is, and as it was until 0.10
        vllm_server.routes[CHAT] = always(body, status)
        run = new_run(url=vllm_server.url, slots=1)
        [outcome] = run.finish(chat_job())
        assert outcome.rejected.code == code
        assert error["message"][:20] in outcome.rejected.message


async def _until(run: EngineRun, num: int, kinds: list[str]) -> None:
    await wait_until(
        lambda: (run.engine.info.slots_usable, [one.kind for one in run.engine.info.issues]) == (num, kinds),
        what=f"{num} slots, {kinds}",
    )


@pytest.mark.anyio
async def test_vllm_is_watched_by_its_health(vllm_server: FakeUpstream, new_run: NewRun) -> None:
    """An empty 200 while it serves, 503 once its engine is dead. How many requests others have there is in `/metrics`,
    which is not asked: `--slots` says how many are ours."""
    run = new_run(url=vllm_server.url, slots=2)
    await _until(run, 2, [])
    healthy = vllm_server.routes["/health"]
    vllm_server.routes["/health"] = always({}, 503)
    await _until(run, 0, ["UpstreamUnreachable"])
    vllm_server.routes["/health"] = healthy
    await _until(run, 2, [])
    assert "/metrics" not in [one.path for one in vllm_server.asked]


def test_what_ollama_is_and_can(ollama_server: FakeUpstream, new_run: NewRun) -> None:
    """It has both routes, though its completions answer an empty object with 404: that is about the model."""
    run = new_run(url=ollama_server.url, slots=2, model="llama3.2")
    info = run.engine.info
    assert (info.model, info.slots_total, info.build, info.abilities) == ("llama3.2", 2, "ollama", ("generate",))
    [outcome] = run.finish(raw_job())
    assert (outcome.text, outcome.done.usage) == ("Hello there", Usage(26, 2, 0)), "zeros under way do not count"
    assert ollama_server.generated()[0].body["model"] == "llama3.2"


def test_a_model_that_ollama_has_not(new_run: NewRun) -> None:
    with ollama("llama3.2:latest", "qwen3:0.6b") as made:
        for how, told in (({}, "has 2 models"), ({"model": "gemma3"}, "has no model 'gemma3'")):
            with pytest.raises(ModelError, match=told):
                new_run(url=made.url, slots=1, **how)
        run = new_run(url=made.url, slots=1, model="qwen3:0.6b")
        assert run.engine.info.model == "qwen3:0.6b"
        run.engine.close()


def test_ollama_streams_a_chat(ollama_server: FakeUpstream, new_run: NewRun) -> None:
    """Every chunk has the role; thoughts are `reasoning`, and a call comes whole."""
    call = {
        "id": "call_1",
        "index": 0,
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
    }
    ollama_server.routes[CHAT] = ollama_says(
        {"reasoning": "Let me see."}, "Look", "ing", {"tool_calls": [call]}, finish="tool_calls"
    )
    run = new_run(url=ollama_server.url, slots=1)
    [outcome] = run.finish(chat_job(tools=(WEATHER,)))
    format = next((one.format for one in run.retained.get("a", ()) if one.format), TextFormat())
    said = read_all(format, [outcome.text])
    assert (said.reasoning, said.content) == ("Let me see.", "Looking")
    assert said.calls == [("weather", '{"city":"Rome"}')]
    assert (outcome.done.reason, outcome.done.usage) == (FinishReason.STOP, Usage(26, 4, 0))


@pytest.mark.parametrize(("path", "job"), [(CHAT, chat_job()), (COMPLETIONS, raw_job())])
def test_a_runner_of_ollama_that_dies_under_way(
    ollama_server: FakeUpstream, new_run: NewRun, path: str, job: Job
) -> None:
    """Its stream just ends. It cannot go on behind a text: raw prompts it puts into its template as well, so that the
    text would be the user's. Nothing is told twice."""
    ollama_server.routes[path] = ollama_says("one ", breaks_off=True)
    run = new_run(url=ollama_server.url, slots=1)
    [outcome] = run.finish(job)
    assert (outcome.text, outcome.rejected.code) == ("one ", "upstream_failed")
    assert len(ollama_server.generated()) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"sampling": Sampling(logit_bias=((7, 1.0),))}, "logit_bias"), ({"sampling": Sampling(mirostat=2)}, "mirostat")],
)
def test_what_ollama_does_not_know_is_refused(
    ollama_server: FakeUpstream, new_run: NewRun, fields: dict[str, Any], param: str
) -> None:
    run = new_run(url=ollama_server.url, slots=1)
    [outcome] = run.finish(chat_job(**fields))
    assert (outcome.rejected.code, outcome.rejected.param) == ("invalid_field", param)
    assert ollama_server.generated() == []


@pytest.mark.anyio
async def test_ollama_is_watched_by_its_models(ollama_server: FakeUpstream, new_run: NewRun) -> None:
    """It has no `/health`; `/api/ps`, which models are loaded, is not asked."""
    run = new_run(url=ollama_server.url, slots=2)
    await _until(run, 2, [])
    await wait_until(lambda: "/health" in [one.path for one in ollama_server.asked], what="it is looked at")
    assert run.engine.info.issues == ()
    ollama_server.stop()
    await _until(run, 0, ["UpstreamUnreachable"])
    ollama_server.start()
    await _until(run, 2, [])
    assert "/api/ps" not in [one.path for one in ollama_server.asked]
