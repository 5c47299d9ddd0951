"""The body of `POST /v1/messages`: the payload it becomes, or the field that is refused before anything is queued."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tiny_vision import picture

from api.anthropic.call import MessageCall, read_count_call, read_message_call
from api.anthropic.errors import error_body
from api.anthropic.label import MessageLabel
from api.anthropic.words import own_words
from paddler.desired.sampling import filled
from paddler.errors import InvalidField, MultimodalNotSupported, PaddlerError
from paddler.payload import check_payload
from paddler.wire.agent import (
    Generate,
    ImagePart,
    Message,
    Sampling,
    TextPart,
    ToolCall,
    decode_payload,
    encode_payload,
)

PNG = picture(1)
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
LOOK = {"name": "look", "input_schema": SCHEMA}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "a fox"}}
ASKED = {"role": "user", "content": "hello"}
CALLED = [ASKED, {"role": "assistant", "content": [CALL]}]


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def image(content: bytes = PNG, **source: Any) -> dict[str, Any]:
    encoded = base64.b64encode(content).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded} | source}


def result(content: Any = ..., **more: Any) -> dict[str, Any]:
    given = {} if content is ... else {"content": content}
    return {"type": "tool_result", "tool_use_id": "toolu_1", **given, **more}


def call(**fields: Any) -> MessageCall:
    body = {"model": "m", "max_tokens": 9, "messages": [ASKED]} | fields
    found = read_message_call(json.dumps({name: one for name, one in body.items() if one is not ...}).encode(), 7)
    check_payload(found.payload)
    sent = filled(found.payload, Sampling())
    assert decode_payload(encode_payload(sent)) == sent
    return found


def read(**fields: Any) -> Generate:
    return call(**fields).payload


def user(*blocks: Any) -> tuple[Message, ...]:
    """What becomes of blocks of a user, behind a call."""
    messages = read(messages=[*CALLED, {"role": "user", "content": list(blocks)}]).messages
    assert messages is not None
    return messages[2:]


def refusal(**fields: Any) -> PaddlerError:
    with pytest.raises(PaddlerError) as caught:
        call(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_message_becomes_a_payload() -> None:
    found = call(
        system="Be brief.", stop_sequences=["a", "b", "a"], temperature=0.5, top_p=0.9, top_k=5, stream=True,
        metadata={"user_id": "me"}, service_tier="auto", cache_control={"type": "ephemeral"}, speed="standard",
    )  # fmt: skip
    assert filled(found.payload, Sampling()) == Generate(
        messages=(Message("system", "Be brief."), Message("user", "hello")),
        max_tokens=9,
        stop=("a", "b"),
        sampling=Sampling(temperature=0.5, top_p=0.9, top_k=5, seed=7),
    )
    assert (found.label, found.stream) == (MessageLabel("m", 9), True)
    assert filled(read(), Sampling()) == Generate(
        messages=(Message("user", "hello"),), max_tokens=9, sampling=Sampling(seed=7)
    )


def test_texts_of_a_turn_are_lines_of_it() -> None:
    marked = {"type": "ephemeral", "ttl": "1h"}
    messages = read(
        system=[text("one", cache_control=marked), text("two")],
        messages=[
            {"role": "user", "content": [text("three"), text("four", citations=None)]},
            {"role": "user", "content": "five"},
            {"role": "assistant", "content": "six"},
            {"role": "assistant", "content": [text("seven")]},
            {"role": "system", "content": [text("eight")]},
            {"role": "user", "content": "nine"},
        ],
    ).messages
    assert messages == (
        Message("system", "one\ntwo"),
        Message("user", "three\nfour\nfive"),
        Message("assistant", "six\nseven"),
        Message("system", "eight"),
        Message("user", "nine"),
    )


def test_what_an_answer_said_goes_back() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "paddler"}
    answer = [thought, text("I look."), CALL | {"caller": {"type": "direct"}}, CALL | {"id": "2", "input": {}}]
    messages = read(messages=[ASKED, {"role": "assistant", "content": answer}, ASKED]).messages
    calls = (ToolCall("toolu_1", "look", '{"at": "a fox"}'), ToolCall("2", "look", "{}"))
    assert messages is not None
    assert messages[1] == Message("assistant", "I look.", tool_calls=calls, reasoning_content="hm")
    nothing = read(messages=[ASKED, {"role": "assistant", "content": []}, ASKED]).messages
    assert nothing is not None
    assert nothing[1] == Message("assistant", "")


def test_an_answer_may_have_begun() -> None:
    begun = [{"role": "assistant", "content": [text("The")]}, {"role": "assistant", "content": "fox "}]
    payload = read(messages=[ASKED, *begun])
    assert (payload.messages, payload.beginning) == ((Message("user", "hello"),), "The\nfox ")
    body = json.dumps({"model": "m", "messages": [ASKED, *begun]}).encode()
    assert read_count_call(body).prompt.beginning == "The\nfox "


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result("a fox"), "a fox"),
        (result(), ""),
        (result([]), ""),
        (result(None), ""),
        (result([text("a"), text("fox")], is_error=False), "a\nfox"),
        (result("no fox", is_error=True), "Error: no fox"),
        (result("Error: no fox", is_error=True), "Error: no fox"),
        (result([text("no"), text("fox")], is_error=True), "Error: no\nfox"),
        (result(is_error=True), "Error: "),
    ],
)
def test_results(block: dict[str, Any], content: str) -> None:
    tool = Message("tool", content, tool_call_id="toolu_1")
    assert user(block) == (tool,)
    assert user(block, block, text("go"), text("on")) == (tool, tool, Message("user", "go\non"))


def test_images_stand_where_they_were() -> None:
    parts = (TextPart("What is"), ImagePart(PNG), TextPart("?"))
    blocks = [text("What is"), image() | {"cache_control": None}, text("?")]
    shown = read(messages=[{"role": "user", "content": blocks}, {"role": "user", "content": "Well?"}])
    assert shown.messages == (Message("user", "What is\n?\nWell?", parts=(*parts, TextPart("Well?"))),)
    assert user(result(blocks), text("so")) == (
        Message("tool", "What is\n?", tool_call_id="toolu_1", parts=parts),
        Message("user", "so"),
    )
    [failed] = user(result([image()], is_error=True))
    assert failed.parts == (TextPart("Error:"), ImagePart(PNG))


def test_an_agents_word_for_an_image_is_not_the_clients() -> None:
    found = call(
        system="Look.",
        messages=[*CALLED, {"role": "user", "content": [result([text("a"), image()]), text("b"), image()]}],
    )
    assert found.label.images == (
        ("messages[3].content[1]", "messages[2].content[0].content[1]"),
        ("messages[4].content[1]", "messages[2].content[2]"),
    )
    error = MultimodalNotSupported("`messages[4].content[1]`: no.", param="messages[4].content[1]")
    told = own_words(error, found.label.images)
    assert isinstance(told, MultimodalNotSupported)
    assert (told.message, told.param) == ("`messages[2].content[2]`: no.", "messages[2].content[2]")


@pytest.mark.parametrize(
    ("param", "own"),
    [
        ("tools[3].function.parameters", "tools[3].input_schema"),
        ("chat_template_kwargs.enable_thinking", "thinking"),
        ("stop", "stop_sequences"),
        ("grammar", "output_config.format"),
        ("temperature", "temperature"),
        (None, None),
    ],
)
def test_an_agents_word_for_a_field_is_not_the_clients(param: str | None, own: str | None) -> None:
    told = own_words(InvalidField(f"`{param}`: no.", param=param))
    assert told.param == own
    message = error_body(told, "x").error.message
    assert own is None or f"`{own}`" in message


def test_tools() -> None:
    payload = read(tools=[LOOK | {"description": "Looks.", "strict": True, "type": "custom"}, LOOK | {"name": "go"}])
    assert [(tool.name, tool.description) for tool in payload.tools] == [("look", "Looks."), ("go", None)]
    assert [json.loads(tool.parameters) for tool in payload.tools] == [SCHEMA, SCHEMA]
    assert (payload.tool_choice, payload.tool_name, payload.parallel_tool_calls) == ("auto", None, True)
    same = {"eager_input_streaming": True, "defer_loading": False, "allowed_callers": ["direct"], "input_examples": []}
    assert read(tools=[LOOK | same | {"cache_control": {"type": "ephemeral"}}]).tools == read(tools=[LOOK]).tools


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "auto"}, ("auto", None, True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, ("auto", None, False)),
        ({"type": "any", "disable_parallel_tool_use": False}, ("required", None, True)),
        ({"type": "none"}, ("none", None, True)),
        ({"type": "tool", "name": "look", "disable_parallel_tool_use": True}, ("required", "look", False)),
    ],
)
def test_choices(choice: Any, said: tuple[str, str | None, bool]) -> None:
    payload = read(tools=[LOOK], tool_choice=choice)
    assert (payload.tool_choice, payload.tool_name, payload.parallel_tool_calls) == said


@pytest.mark.parametrize(
    ("thinking", "variables", "hides"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, '{"enable_thinking":true}', False),
        ({"type": "enabled", "display": "omitted"}, '{"enable_thinking":true}', True),
        ({"type": "disabled"}, '{"enable_thinking":false}', False),
        ({"type": "adaptive", "display": "summarized"}, "", False),
        (None, "", False),
    ],
)
def test_thinking(thinking: Any, variables: str, hides: bool) -> None:
    found = call(thinking=thinking)
    assert (found.payload.template_kwargs, found.label.hides_thinking) == (variables, hides)


def test_a_form_of_the_answer() -> None:
    format = {"type": "json_schema", "schema": SCHEMA}
    grammar = read(output_config={"format": format}).grammar
    assert grammar is not None
    assert read(output_format=format).grammar == grammar
    assert read(output_config={"format": format}, tools=[LOOK], tool_choice={"type": "none"}).grammar == grammar


def test_a_count_is_of_the_same_prompt() -> None:
    fields: dict[str, Any] = {
        "system": "Be brief.", "tools": [LOOK], "tool_choice": {"type": "any"}, "thinking": {"type": "disabled"},
        "messages": [*CALLED, {"role": "user", "content": [result([image()])]}],
    }  # fmt: skip
    message, count = call(**fields), read_count_call(json.dumps({"model": "m"} | fields).encode())
    sent = message.payload
    assert count.images == message.label.images
    assert count.prompt == Generate(
        messages=sent.messages, tools=sent.tools, tool_choice="required", template_kwargs=sent.template_kwargs
    )
    with pytest.raises(InvalidField, match="max_tokens"):
        read_count_call(b'{"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 5}')


def as_user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"max_tokens": ...}, "max_tokens", "required"),
        ({"max_tokens": 0}, "max_tokens", "1"),
        ({"messages": []}, "messages", "length"),
        ({"temprature": 1}, "temprature", "did you mean `temperature`"),
        ({"temperature": 3}, "temperature", "2"),
        ({"seed": 1}, "seed", "Unknown field"),
        ({"thread": {"type": "create"}}, "thread", "not supported yet"),
        ({"container": "x"}, "container", "not supported yet"),
        ({"context_management": {"edits": []}}, "context_management", "not supported yet"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers", "not supported yet"),
        ({"inference_geo": "eu"}, "inference_geo", "not supported yet"),
        ({"speed": "fast"}, "speed", "other than `standard`"),
        ({"service_tier": "gold"}, "service_tier", "gold"),
        ({"stop_sequences": [""]}, "stop_sequences[0]", "length"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type", "other than `enabled`"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 5}}, "thinking.budget_tokens", "`enabled`"),
        ({"thinking": {"type": "disabled", "display": "omitted"}}, "thinking.display", "`disabled`"),
        ({"output_config": {"effort": "high"}}, "output_config.effort", "not supported yet"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type", "text"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}},
            "output_config.format.schema",
            "cannot be enforced",
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}, "tools": [LOOK]},
            "tools",
            "exclude each other",
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
             "output_format": {"type": "json_schema", "schema": SCHEMA}},
            "output_format",
            "exclude each other",
        ),
        ({"tools": [{"type": "web_search_20250305", "max_uses": 3}]}, "tools[0].type", "web_search_20250305"),
        ({"tools": [LOOK, {"type": "bash_20250124", "name": "bash"}]}, "tools[1].type", "bash_20250124"),
        ({"tools": [LOOK, LOOK]}, "tools[1].name", "another tool"),
        ({"tools": [LOOK | {"name": "a b"}]}, "tools[0].name", "characters"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema", "required"),
        ({"tools": [LOOK | {"input_schema": {"type": "string"}}]}, "tools[0].input_schema", "object"),
        ({"tools": [LOOK, {"name": "b", "input_schema": {"not": {}}}]}, "tools[1].input_schema", "cannot be enforced"),
        ({"tools": [LOOK | {"defer_loading": True}]}, "tools[0].defer_loading", "not supported yet"),
        ({"tools": [LOOK | {"eager_input_streaming": False}]}, "tools[0].eager_input_streaming", "as they are written"),
        ({"tools": [LOOK | {"input_examples": [{}]}]}, "tools[0].input_examples", "not supported yet"),
        ({"tools": [LOOK | {"allowed_callers": ["code"]}]}, "tools[0].allowed_callers[0]", "not supported"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "needs `tools`"),
        ({"tool_choice": {"type": "tool", "name": "go"}, "tools": [LOOK]}, "tool_choice", "'go'"),
        ({"tool_choice": {"type": "tool"}, "tools": [LOOK]}, "tool_choice.name", "needs it"),
        ({"tool_choice": {"type": "auto", "name": "look"}, "tools": [LOOK]}, "tool_choice.name", "`tool`"),
        (
            {"tool_choice": {"type": "none", "disable_parallel_tool_use": True}, "tools": [LOOK]},
            "tool_choice.disable_parallel_tool_use",
            "`none`",
        ),
        ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, "messages", "must be text alone"),
        ({"messages": CALLED}, "messages", "must be text alone"),
        ({"messages": [{"role": "assistant", "content": "The"}], "system": "s"}, "messages", "one of the user"),
        (
            {"messages": [ASKED, {"role": "assistant", "content": "{"}],
             "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "output_config.format",
            "a whole answer",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "tool"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "required"),
        (as_user(), "messages[0].content", "at least one block"),
        (as_user({"type": "document", "source": {}}), "messages[0].content[0].type", "other than `text`"),
        (as_user({"type": "redacted_thinking", "data": "x"}), "messages[0].content[0].type", "other than `text`"),
        (as_user(text("a", citations=[{}])), "messages[0].content[0].citations", "not supported yet"),
        (as_user(CALL), "messages[0].content[0]", "`tool_use` does not belong into a message of the role `user`"),
        (as_user(result("x")), "messages[0].content[0].tool_use_id", "no `tool_use`"),
        (as_user(image(type="url", url="http://x")), "messages[0].content[0].source.media_type", "Unknown field"),
        (
            as_user({"type": "image", "source": {"type": "url", "url": "http://x"}}),
            "messages[0].content[0].source",
            "remote images are not fetched",
        ),
        (
            as_user({"type": "image", "source": {"type": "file", "file_id": "x"}}),
            "messages[0].content[0].source.type",
            "not supported yet",
        ),
        (as_user(image(media_type="image/bmp")), "messages[0].content[0].source.media_type", "image/bmp"),
        (as_user(text("a"), image(data="?")), "messages[0].content[1]", "no base64"),
        (as_user(text("a"), image(b"no image")) | {"system": "s"}, "messages[0].content[1]", "cannot be used"),
        (
            as_user(image() | {"transformations": {"oversized_image": "error"}}),
            "messages[0].content[0].transformations",
            "not supported yet",
        ),
        (
            {"messages": [*CALLED, {"role": "user", "content": [text("a"), result("b")]}]},
            "messages[2].content[1]",
            "come before all else",
        ),
        (
            {"messages": [*CALLED, {"role": "user", "content": [result([{"type": "document"}])]}]},
            "messages[2].content[0].content[0].type",
            "other than of `text`",
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": [CALL | {"input": [1]}]}, ASKED]},
            "messages[1].content[0].input",
            "must be an object",
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": [result("x")]}, ASKED]},
            "messages[1].content[0]",
            "role `assistant`",
        ),
        ({"messages": [{"role": "system", "content": [image()]}, ASKED]}, "messages[0].content[0]", "role `system`"),
    ],
)  # fmt: skip
def test_what_is_refused(fields: dict[str, Any], param: str, says: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    message = error_body(error, "x").error.message
    assert says in message
    assert f"`{param}`" in message
