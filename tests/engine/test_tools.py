"""Tools on tiny models of every family: real templates, vocabularies and grammars over random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from chat_families import FAMILIES
from jsonschema import Draft202012Validator

from paddler.chat_formats.reading import Said, read_all
from paddler.engine import Job
from paddler.testing.engine_run import EngineRun, Outcome
from paddler.wire.agent import Generate, Message, Sampling, Tool, ToolCall
from paddler.wire.balancer import FinishReason, TextFormat
from workers.agent.llama_engine import LlamaEngine

MakeFamily = Callable[..., LlamaEngine]

SCHEMAS: dict[str, Any] = {
    "look": {
        "type": "object",
        "properties": {"at": {"type": "string", "maxLength": 12}, "far": {"type": "boolean"}},
        "required": ["at", "far"],
        "additionalProperties": False,
    },
    "look_up": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 20}},
        "required": ["n"],
        "additionalProperties": False,
    },
    "go": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = tuple(Tool(name, json.dumps(schema), f"The tool {name}.") for name, schema in SCHEMAS.items())
ASKED = (Message("user", "Look at the fox."),)
TALK = (
    *ASKED,
    Message("assistant", "", tool_calls=(ToolCall("call_abcdef", "look", '{"at": "fox", "far": true}'),)),
    Message("tool", "It is red.", tool_call_id="call_abcdef"),
)


def asking(**fields: Any) -> Generate:
    sampling = fields.pop("sampling", Sampling(temperature=1.0, seed=5, penalty_last_n=0))
    fields = {"messages": ASKED, "tools": TOOLS, "max_tokens": 300} | fields
    return Generate(sampling=sampling, **fields)


def liking(*texts: str, seed: int = 5) -> Sampling:
    """Of a model that would rather say these than anything else."""
    return Sampling(temperature=1.0, seed=seed, penalty_last_n=0, logit_bias=tuple((text, 100.0) for text in texts))


def run_one(engine: LlamaEngine, payload: Generate) -> tuple[Outcome, TextFormat | None]:
    run = EngineRun(engine)
    [outcome] = run.finish(Job(request_id="r", payload=payload))
    told = [event.format for event in run.retained.get("r", []) if event.num_cached is not None]
    return outcome, told[0] if told else None


def read(outcome: Outcome, format: TextFormat | None) -> Said:
    assert format is not None
    return read_all(format, outcome.pieces)


def check(said: Said) -> None:
    for name, arguments in said.calls:
        Draft202012Validator(SCHEMAS[name]).validate(json.loads(arguments))


def prompt_of(engine: LlamaEngine, payload: Generate) -> str:
    template = engine._encoder._template
    assert template is not None
    return template.render_chat(payload, {})


@pytest.mark.parametrize("name", FAMILIES)
def test_tools_and_turns_come_into_the_prompt(make_family: MakeFamily, name: str) -> None:
    family, engine = FAMILIES[name], make_family(name)
    text = prompt_of(engine, asking())
    assert family.told in text
    assert all(tool in text for tool in SCHEMAS)
    assert family.told not in prompt_of(engine, asking(tools=()))
    assert family.told not in prompt_of(engine, asking(tool_choice="none"))
    for tools in (TOOLS, ()):
        text = prompt_of(engine, asking(messages=TALK, tools=tools))
        compact = "".join(text.split())
        assert '{"at":"fox","far":true}' in compact
        assert "It is red." in text
        assert "look" in text
        assert (family.mark in text.split("Look at the fox.")[1]) or name == "llama3"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("is_parallel", [False, True])
def test_a_call_that_is_required_comes(make_family: MakeFamily, name: str, is_parallel: bool) -> None:
    """A model that thinks has to stop it first, which a random one would not do for long."""
    sampling = liking("</think>", "<|im_end|>") if FAMILIES[name].thought else None
    fields = {"sampling": sampling} if sampling else {}
    payload = asking(tool_choice="required", parallel_tool_calls=is_parallel, **fields)
    outcome, format = run_one(make_family(name), payload)
    assert format is not None
    assert (format.calls, format.thought) == (FAMILIES[name].calls, FAMILIES[name].thought)
    said = read(outcome, format)
    assert said.calls
    if outcome.done.reason is FinishReason.STOP:
        assert said.content == ""
        assert len(said.calls) == 1 or is_parallel
        check(said)
    else:
        assert is_parallel


@pytest.mark.parametrize("name", ["hermes-control", "llama3", "mistral", "mistral-args", "plain"])
def test_the_tool_that_is_named_is_called(make_family: MakeFamily, name: str) -> None:
    engine = make_family(name)
    for tool in SCHEMAS:
        payload = asking(tool_choice="required", tool_name=tool, parallel_tool_calls=False)
        outcome, format = run_one(engine, payload)
        assert outcome.done.reason is FinishReason.STOP
        said = read(outcome, format)
        check(said)
        assert [name for name, _ in said.calls] == [tool]


@pytest.mark.parametrize("name", FAMILIES)
def test_auto_without_a_call_is_text(make_family: MakeFamily, name: str) -> None:
    outcome, format = run_one(make_family(name), asking(max_tokens=60))
    said = read(outcome, format)
    assert said.calls == []
    assert said.content + said.reasoning
    plain, none = run_one(make_family(name), asking(max_tokens=60, tool_choice="none"))
    assert plain.text
    assert none is None or none.calls == ""


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.thought])
@pytest.mark.parametrize("is_parallel", [False, True])
def test_auto_is_held_to_its_tools_from_the_mark_on(make_family: MakeFamily, name: str, is_parallel: bool) -> None:
    """The mark may come as one token or spelt. Behind a call there is another one, or the end."""
    engine = make_family(name)
    mark = FAMILIES[name].mark
    token = engine._model.tokenize(mark).tolist()
    sampling = liking(mark) if len(token) == 1 else Sampling(temperature=1.0, seed=5, penalty_last_n=0)
    prompt = asking(sampling=sampling, parallel_tool_calls=is_parallel)
    first = Outcome(ids=token, pieces=[mark])
    job = Job(request_id="r", payload=prompt, resume_ids=tuple(first.ids), resume_text=mark)
    run = EngineRun(engine)
    [rest] = run.finish(job)
    format = next(event.format for event in run.retained["r"] if event.num_cached is not None)
    assert format is not None
    said = read_all(format, [mark, rest.text])
    assert said.calls
    check(Said(calls=said.calls[:1]))
    if not is_parallel:
        assert rest.done.reason is FinishReason.STOP
        assert said.content == ""
        assert len(said.calls) == 1
    if len(token) == 1:
        whole, format = run_one(engine, prompt)
        assert read(whole, format).calls


@pytest.mark.parametrize("name", ["opened", "qwen3"])
def test_a_thought_comes_before_whatever_is_asked_for(make_family: MakeFamily, name: str) -> None:
    """A thought may have anything in it, and behind it the form holds."""
    engine = make_family(name)
    opening = () if name == "opened" else tuple(engine._model.tokenize("<think>").tolist())
    forms: list[tuple[str, dict[str, Any]]] = [
        ("Hm <tool_call> no", {"tool_choice": "required", "parallel_tool_calls": False}),
        ("Hm </thin", {"tools": (), "grammar": 'root ::= "yes"'}),
    ]
    for thought, fields in forms:
        inside = engine._model.tokenize(f"{thought} </think>").tolist()
        payload = asking(**fields)
        job = Job(request_id="r", payload=payload, resume_ids=(*opening, *inside))
        run = EngineRun(engine)
        [rest] = run.finish(job)
        assert rest.done.reason is FinishReason.STOP
        said = read(rest, run.retained["r"][0].format)
        assert said.reasoning == thought
        if "grammar" in fields:
            assert said.content == "yes"
        else:
            assert len(said.calls) == 1
            check(said)


def test_thinking_can_be_switched_off(make_family: MakeFamily) -> None:
    engine = make_family("qwen3")
    off = '{"enable_thinking":false}'
    outcome, format = run_one(engine, asking(tool_choice="required", parallel_tool_calls=False, template_kwargs=off))
    assert format == TextFormat("hermes")
    assert len(read(outcome, format).calls) == 1
    _, format = run_one(engine, asking(tools=(), template_kwargs=off, max_tokens=5, logprobs=1))
    assert format is None
    _, format = run_one(engine, asking(tools=(), template_kwargs='{"enable_thinking":true}', max_tokens=5))
    assert format == TextFormat("", "think")
    _, format = run_one(make_family("opened"), asking(tools=(), max_tokens=5))
    assert format == TextFormat("", "think", True)


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("plain", {"template_kwargs": '{"enable_thinking":true}'}, "chat_template_kwargs.enable_thinking"),
        ("opened", {"template_kwargs": '{"enable_thinking":false}'}, "chat_template_kwargs.enable_thinking"),
        ("qwen3", {"template_kwargs": '{"depth":1}'}, "chat_template_kwargs.depth"),
        ("opened", {"logprobs": 1}, "logprobs"),
        ("opened", {"beginning": "The"}, "messages"),
        ("plain", {"messages": None, "prompt": "x", "beginning": "The"}, "prompt"),
        ("plain", {"messages": None, "prompt": "x", "tools": TOOLS}, "tools"),
        ("plain", {"grammar": 'root ::= "a"', "tools": TOOLS}, "tools"),
        ("plain", {"tool_name": "fly", "tool_choice": "required", "tools": TOOLS}, "tool_choice"),
        ("plain", {"tool_choice": "required"}, "tool_choice"),
        ("plain", {"tools": (Tool("f", '{"type":"object","not":{}}'),)}, "tools[0].function.parameters"),
    ],
)
def test_what_an_agent_refuses(make_family: MakeFamily, name: str, fields: dict[str, Any], param: str) -> None:
    outcome, _ = run_one(make_family(name), asking(**({"tools": ()} | fields)))
    assert (outcome.rejected.status, outcome.rejected.param) == (400, param)


def test_thinking_that_a_model_has_not_is_switched_off_already(make_family: MakeFamily) -> None:
    outcome, format = run_one(
        make_family("plain"), asking(tools=(), template_kwargs='{"enable_thinking":false}', max_tokens=4)
    )
    assert outcome.end is not None
    assert format is None


def test_thinking_that_a_template_has_always_is_switched_on_already(make_family: MakeFamily) -> None:
    _, format = run_one(
        make_family("opened"), asking(tools=(), template_kwargs='{"enable_thinking":true}', max_tokens=4)
    )
    assert format == TextFormat("", "think", True)


def test_an_answer_goes_on_behind_its_beginning(make_family: MakeFamily) -> None:
    engine = make_family("plain")
    payload = asking(tools=(), beginning="The fox is", max_tokens=8)
    begun, _ = run_one(engine, payload)
    raw = Generate(prompt=prompt_of(engine, payload) + "The fox is", max_tokens=8, sampling=payload.sampling)
    whole, _ = run_one(engine, raw)
    assert begun.ids == whole.ids
    assert begun.done.usage.prompt_tokens == whole.done.usage.prompt_tokens


def test_marks_are_written_out_for_their_format_alone(make_family: MakeFamily) -> None:
    engine = make_family("mistral")
    liked = liking("[TOOL_CALLS]")
    plain, format = run_one(engine, asking(tools=(), sampling=liked, max_tokens=8))
    assert format is None
    assert "[TOOL_CALLS]" not in plain.text
    called, _ = run_one(engine, asking(sampling=liked, max_tokens=8))
    assert called.text.startswith("[TOOL_CALLS]")


def resumed(payload: Generate, whole: Outcome, at: int) -> Job:
    text = "".join(whole.pieces[:at])
    return Job(request_id="r", payload=payload, resume_ids=tuple(whole.ids[:at]), resume_text=text)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["hermes", "mistral-args", "llama3", "qwen3"])
def test_a_call_goes_on_exactly_from_every_token(make_family: MakeFamily, name: str) -> None:
    """Marks, names, arguments and thoughts: the same tokens and the same text, whoever says the rest."""
    thought = ("</think>", "<think>") if FAMILIES[name].thought else ()
    payload = asking(
        sampling=liking(FAMILIES[name].mark, *thought, seed=8), tool_name="look", tool_choice="required",
        parallel_tool_calls=False, tools=TOOLS[:1],
    )  # fmt: skip
    engine = make_family(name, slots=1, n_batch=32, max_parked=0)  # below a tile: the same bits (DESIGN.md)
    whole, format = run_one(engine, payload)
    said = read(whole, format)
    assert [name for name, _ in said.calls] == ["look"]
    assert whole.done.reason is FinishReason.STOP
    for at in range(1, len(whole.ids)):
        run = EngineRun(engine)
        [rest] = run.finish(resumed(payload, whole, at))
        assert [*whole.ids[:at], *rest.ids] == whole.ids, f"cut at {at}"
        assert "".join(whole.pieces[:at]) + rest.text == whole.text
        assert run.retained["r"][0].format == format


def test_two_tenants_with_the_same_tools_share_nothing(make_family: MakeFamily) -> None:
    engine = make_family("hermes")
    ends = [
        run_one(engine, asking(cache_scope=scope, tool_choice="required", parallel_tool_calls=False))[0].done
        for scope in ("a", "b", "a")
    ]
    assert [end.usage.cached_tokens > 0 for end in ends] == [False, False, True]


def test_many_tools_keep_no_step_for_themselves(make_family: MakeFamily) -> None:
    """They are prepared over several steps, between which the others go on."""
    engine = make_family("plain")
    monthly = {f"p{n}": {"type": "integer", "minimum": n, "maximum": 123456 + n} for n in range(4)}
    tools = tuple(
        Tool(f"f{n}", json.dumps({"type": "object", "properties": monthly | {f"of{n}": {"const": n}}}))
        for n in range(40)
    )
    run = EngineRun(engine)
    other = run.start(Job(request_id="other", payload=asking(tools=(), max_tokens=60)))
    run.step_until(lambda: len(other.ids) == 2)
    many = run.start(Job(request_id="many", payload=asking(tools=tools, max_tokens=4)))
    run.step()
    assert len(engine._started) == 1, "it needs more than one step"
    assert len(other.ids) == 3
    run.finish()
    assert many.end is not None
    assert len(other.ids) > 4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("has_system", [False, True])
def test_tools_are_kept_when_a_context_is_full(make_family: MakeFamily, name: str, has_system: bool) -> None:
    """Where the template writes them before the conversation; behind a later turn they go with it."""
    encoder = make_family(name)._encoder
    system = (Message("system", "You are a pirate."),) if has_system else ()
    payload = asking(messages=(*system, *ASKED))
    prompt = encoder.encode(payload)
    kept = prompt[: encoder.num_system(payload, prompt)].tolist()
    text = b"".join(encoder._model.piece(token, special=True) for token in kept).decode()
    assert all(tool in text for tool in SCHEMAS)
    assert "pirate" in text or not has_system
    assert "fox" not in text


@pytest.mark.parametrize("name", ["qwen3", "opened", "plain"])
def test_a_wish_for_thinking_is_told_and_never_refused(make_family: MakeFamily, name: str) -> None:
    """As native requests have it: what the template does not look at changes nothing."""
    for wish in (True, False):
        outcome, format = run_one(make_family(name), asking(tools=(), enable_thinking=wish, max_tokens=4))
        assert outcome.end is not None
        if name == "qwen3":
            assert (format is not None) == wish
    off = '{"enable_thinking":false}'
    _, format = run_one(make_family("qwen3"), asking(tools=(), enable_thinking=True, template_kwargs=off, max_tokens=4))
    assert format is None
