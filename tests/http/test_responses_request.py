"""Bodies of `POST /v1/responses`: what they become in the queue, and what is refused, by the name of its field."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.responses.call import ResponseCall, read_response_call
from api.responses.item_schema import Item, ReferenceItem
from api.responses.items import items_json, stored_items
from api.responses.objects import echo_of
from api.responses.schema import NOT_YET, ResponsesRequest
from paddler.desired.sampling import with_defaults
from paddler.errors import ImageDecodingFailed, InvalidField
from paddler.images import MAX_IMAGES
from paddler.wire.agent import Generate, ImagePart, Message, Sampling, TextPart, Tool, ToolCall

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PIXEL = f"data:image/png;base64,{_PNG}"
PARAMETERS = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
LOOK = {"type": "function", "name": "look", "parameters": PARAMETERS, "strict": True}
GO = {"type": "function", "name": "go", "description": "Walk.", "parameters": None}
ALLOW_GO = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "go"}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "a fox"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {}}}


def read(**fields: Any) -> ResponseCall:
    return read_response_call(json.dumps({"model": "m", "input": "hi"} | fields).encode(), 7)


def items_of(call: ResponseCall) -> list[Item]:
    return [item for item in call.items if not isinstance(item, ReferenceItem)]


def generate(call: ResponseCall) -> Generate:
    return call.generate(items_of(call))


def messages(*items: Any, **fields: Any) -> tuple[Message, ...]:
    said = generate(read(input=list(items), **fields)).messages
    assert said is not None
    return said


def test_a_text_is_a_turn_of_the_user_behind_the_instructions() -> None:
    assert generate(read()).messages == (Message("user", "hi"),)
    assert generate(read(instructions="be brief")).messages == (Message("system", "be brief"), Message("user", "hi"))


def test_items_become_turns() -> None:
    assistant: Any = {"role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]}
    said = messages(
        {"role": "developer", "content": "d"}, {"role": "user", "content": "u"}, THOUGHT, assistant, CALL, RESULT
    )
    call = ToolCall("c1", "look", "{}")
    assert said == (
        Message("system", "d"),
        Message("user", "u"),
        Message("assistant", "I look.", tool_calls=(call,), reasoning_content="hm"),
        Message("tool", "a fox", tool_call_id="c1"),
    )


def test_content_behind_calls_is_a_turn_of_its_own() -> None:
    said = messages(CALL, {"role": "assistant", "content": "done"}, THOUGHT, CALL | {"call_id": "c2"})
    assert [(one.content, len(one.tool_calls), one.reasoning_content) for one in said] == [
        ("", 1, None),
        ("done", 0, None),
        ("", 1, "hm"),
    ]


def test_an_image_stands_where_it_was() -> None:
    content = [
        {"type": "input_text", "text": "before"},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        {"type": "input_text", "text": "behind"},
    ]
    [said] = messages({"role": "user", "content": content})
    assert said.content == "before\nbehind"
    assert [type(part) for part in said.parts] == [TextPart, ImagePart, TextPart]
    [_, result] = messages(CALL, RESULT | {"output": content})
    assert (result.role, len(result.parts)) == ("tool", 3)


def test_sampling_and_bounds_are_those_of_a_chat_completion() -> None:
    payload = generate(
        read(temperature=0, top_p=0.5, top_k=3, max_output_tokens=9, seed=5, stop="x", presence_penalty=1)
    )
    assert with_defaults(payload.sampling, Sampling()) == Sampling(
        temperature=0, top_p=0.5, top_k=3, seed=5, penalty_presence=1
    )
    assert (payload.max_tokens, payload.stop) == (9, ("x",))
    assert with_defaults(read().payload.sampling, Sampling()) == Sampling(seed=7)
    asked = read(include=["message.output_text.logprobs"], top_logprobs=2)
    assert asked.payload.logprobs == 2
    assert read(include=["reasoning.encrypted_content"]).payload.logprobs is None


@pytest.mark.parametrize(
    ("choice", "names", "expected"),
    [
        (None, ["look", "go"], ("auto", None)),
        ("none", ["look", "go"], ("none", None)),
        ("required", ["look", "go"], ("required", None)),
        ({"type": "function", "name": "go"}, ["look", "go"], ("required", "go")),
        (ALLOW_GO, ["go"], ("auto", None)),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
            ["look"],
            ("required", None),
        ),
    ],
)
def test_every_choice_of_tools(choice: Any, names: list[str], expected: tuple[str, str | None]) -> None:
    payload = generate(read(tools=[LOOK, GO], tool_choice=choice, parallel_tool_calls=False))
    assert [tool.name for tool in payload.tools] == names
    assert (payload.tool_choice, payload.tool_name) == expected
    assert payload.parallel_tool_calls is False


def test_a_tool_as_the_wire_has_it() -> None:
    [look, go] = read(tools=[LOOK, GO]).payload.tools
    assert json.loads(look.parameters) == PARAMETERS
    assert go == Tool("go", '{"type":"object","properties":{},"additionalProperties":false}', "Walk.")


def test_thinking_is_switched() -> None:
    assert read(reasoning={"effort": "none"}).payload.template_kwargs == '{"enable_thinking":false}'
    assert read(reasoning={"effort": "low", "summary": "auto"}).payload.template_kwargs == '{"enable_thinking":true}'
    assert read(reasoning={}).payload.template_kwargs == ""


def test_forms_of_the_answer() -> None:
    assert read(text={"format": {"type": "text"}}).payload.grammar is None
    assert read(text={"format": {"type": "json_object"}}).payload.grammar
    assert read(text={"format": SCHEMA | {"strict": True}}).payload.grammar


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 3}, "input"),
    ({"input": [3]}, "input[0]"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
    ({"input": [{"content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": "x", "colour": 1}]}, "input[0].colour"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
    ({"input": [RESULT]}, "input[0].call_id"),
    ({"input": [CALL | {"namespace": "n"}]}, "input[0].namespace"),
    ({"input": [CALL | {"arguments": {}}]}, "input[0].arguments"),
    ({"input": [THOUGHT | {"encrypted_content": "x"}]}, "input[0].encrypted_content"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "x"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x", "image_url": PIXEL}]}]},
        "input[0].content[0].image_url",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]}]},
        "input[0].content[0].image_url",
    ),
    ({"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": PIXEL}]}]}, "input[0].content"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [LOOK, {"type": "function"}]}, "tools[1].name"),
    ({"tools": [LOOK, LOOK]}, "tools[1].name"),
    ({"tools": [LOOK | {"name": "a b"}]}, "tools[0].name"),
    ({"tools": [LOOK | {"parameters": {"type": "array"}}]}, "tools[0].parameters"),
    ({"tools": [LOOK | {"defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "go"}}, "tool_choice"),
    ({"tools": [LOOK], "tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice.type"),
    (
        {"tools": [LOOK], "tool_choice": ALLOW_GO},
        "tool_choice.tools",
    ),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [LOOK], "text": {"format": SCHEMA}}, "tools"),
    ({"tools": [LOOK], "include": ["message.output_text.logprobs"]}, "tools"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
    ({"text": {"format": SCHEMA | {"schema": {"type": "frob"}}}}, "text.format.schema"),
    ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format.schema"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"reasoning": {"effort": "heavy"}}, "reasoning.effort"),
    ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
    ({"include": ["web_search_call.results"]}, "include"),
    ({"include": ["x"]}, "include[0]"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"truncation": "auto"}, "truncation"),
    ({"background": True, "store": False}, "store"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"metadata": {"k": 1}}, "metadata[...]"),
    ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"n": 2}, "n"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_done_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as wrong:
        generate(read(**fields))
    assert wrong.value.param == param
    name = param.rpartition(".")[2].partition("[")[0]
    assert name in wrong.value.message
    assert wrong.value.message.startswith(("`", "A", "Unknown field", "Content"))


@pytest.mark.parametrize("name", [name for name, kind in ResponsesRequest.__annotations__.items() if kind == "None"])
def test_what_is_not_supported_has_words_for_it(name: str) -> None:
    assert name in NOT_YET
    with pytest.raises(InvalidField, match="is not supported yet"):
        read(**{name: "x"})


def test_too_many_images_are_told_of_the_input() -> None:
    content = [{"type": "input_image", "image_url": PIXEL}] * (MAX_IMAGES + 1)
    with pytest.raises((InvalidField, ImageDecodingFailed)) as wrong:
        messages({"role": "user", "content": content})
    assert wrong.value.param == "input"


def test_stored_items_are_those_that_were_read() -> None:
    image = {"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}
    items = items_of(read(input=[image, THOUGHT, CALL, RESULT]))
    assert stored_items(items_json(items)) == items
    assert json.loads(items_json(items_of(read()))) == [{"role": "user", "content": "hi", "type": "message"}]


def test_a_response_says_again_how_it_was_asked_for_in_one_line() -> None:
    body = json.dumps({"model": "m", "input": "hi", "tools": [LOOK], "metadata": {"k": "v"}, "user": "me"}, indent=2)
    echo = echo_of(read_response_call(body.encode(), 7))
    assert b"\n" not in echo
    told = msgspec.json.decode(echo)
    assert (told["tools"], told["metadata"], told["user"]) == ([LOOK], {"k": "v"}, "me")
    assert (told["store"], told["background"], told["truncation"], told["temperature"]) == (
        True,
        False,
        "disabled",
        0.8,
    )
    assert told["text"] == {"format": {"type": "text"}}
