"""What a request says of tools: the payload it becomes, or the field that is refused before anything is queued."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from litestar.exceptions import ClientException

from api.body import MAX_AT_ONCE
from api.openai import chat
from api.openai.chat import read_chat_call, receive_chat_call
from api.tools import MAX_DESCRIPTION, MAX_TOOLS_BYTES
from paddler.chat_formats.grammars import _tools_grammar
from paddler.desired.sampling import filled
from paddler.errors import InvalidField
from paddler.payload import check_payload
from paddler.wire.agent import Generate, Message, Sampling, Tool, ToolCall, decode_payload, encode_payload

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}


def tool(name: str = "look", parameters: Any = SCHEMA, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


def read(**fields: Any) -> Generate:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]} | fields
    payload = read_chat_call(json.dumps(body).encode(), 7).payload
    check_payload(payload)
    sent = filled(payload, Sampling())
    assert decode_payload(encode_payload(sent)) == sent
    return payload


def test_tools_become_the_wires() -> None:
    payload = read(tools=[tool(description="Looks.", strict=True), tool("go.to-2", None)])
    assert [(one.name, one.description) for one in payload.tools] == [("look", "Looks."), ("go.to-2", None)]
    assert [json.loads(one.parameters) for one in payload.tools] == [
        SCHEMA,
        {"type": "object", "properties": {}, "additionalProperties": False},
    ]
    assert (payload.tool_choice, payload.tool_name, payload.parallel_tool_calls) == ("auto", None, True)


def test_an_object_is_what_parameters_are_taken_for() -> None:
    [one] = read(tools=[tool("f", {"properties": {"a": {}}})]).tools
    assert json.loads(one.parameters) == {"type": "object", "properties": {"a": {}}}


def test_a_function_that_names_no_arguments_has_none() -> None:
    """As `pydantic` writes the schema of one, which would allow any."""
    none, any_, open_ = {"type": "object", "properties": {}}, {"type": "object"}, {"additionalProperties": True}
    tools = read(tools=[tool("a", none), tool("b", any_), tool("c", none | open_)]).tools
    assert [json.loads(one.parameters) for one in tools] == [none | {"additionalProperties": False}, any_, none | open_]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("auto", ("auto", None)),
        ("none", ("none", None)),
        ("required", ("required", None)),
        ({"type": "function", "function": {"name": "go"}}, ("required", "go")),
    ],
)
def test_choices(choice: Any, said: tuple[str, str | None]) -> None:
    payload = read(tools=[tool(), tool("go")], tool_choice=choice, parallel_tool_calls=False)
    assert (payload.tool_choice, payload.tool_name) == said
    assert not payload.parallel_tool_calls
    assert bool(payload.callable_tools) == (choice != "none")


def test_a_conversation_with_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "index": 0}], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "a fox"}]},
        {"role": "assistant", "content": "So", "tool_calls": []},
    ]
    assert read(messages=turns).messages == (
        Message("user", "hello"),
        Message("assistant", "", None, (ToolCall("c1", "look", '{"at": "x"}'),), None, "hm"),
        Message("tool", "a fox", tool_call_id="c1"),
        Message("assistant", "So"),
    )


def test_variables_of_the_template() -> None:
    payload = read(chat_template_kwargs={"enable_thinking": False, "depth": [1, None]})
    assert json.loads(payload.template_kwargs) == {"enable_thinking": False, "depth": [1, None]}
    assert read(chat_template_kwargs={}).template_kwargs == ""


def test_a_form_of_the_answer_where_no_tool_may_be_called() -> None:
    payload = read(tools=[tool()], tool_choice="none", response_format={"type": "json_object"}, logprobs=True)
    assert payload.tools == (Tool("look", json.dumps(SCHEMA, separators=(",", ":"))),)
    assert payload.grammar is not None


TWO = [tool("a"), tool("b")]
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type", "required"),
        ({"tools": [tool(), tool()]}, "tools[1].function.name", "another tool is called 'look' too"),
        ({"tools": [tool("no spaces")]}, "tools[0].function.name", "a-z"),
        ({"tools": [tool("x" * 65)]}, "tools[0].function.name", "1 to 64"),
        ({"tools": [tool(more=1)]}, "tools[0].function.more", "Unknown field"),
        ({"tools": [tool(str(n)) for n in range(129)]}, "tools", "<= 128"),
        ({"tools": [*TWO, tool(parameters={"type": "array"})]}, "tools[2].function.parameters", "arguments have names"),
        ({"tools": [*TWO, tool(parameters="x")]}, "tools[2].function.parameters", "must be an object"),
        ({"tools": [*TWO, tool(parameters={"properties": {"a": {"not": {}}}})]}, "tools[2].function.parameters",
         "`not` cannot be enforced; leave it out (at /properties/a)"),
        ({"tools": [tool(description="x" * (MAX_DESCRIPTION + 1))]}, "tools[0].function.description", "<= 16384"),
        ({"tools": [tool(str(n), description="☃" * MAX_DESCRIPTION) for n in range(6)]}, "tools", "send fewer"),
        ({"tools": [tool(parameters={"description": "x" * MAX_TOOLS_BYTES})]}, "tools", "send fewer"),
        ({"tools": [tool(parameters={"properties": 3})]}, "tools[0].function.parameters", "must be an object"),
        ({"tools": TWO, "tool_choice": {"type": "function", "function": {"name": "c"}}}, "tool_choice", "called 'c'"),
        ({"tools": TWO, "tool_choice": {"type": "function"}}, "tool_choice.function", "required"),
        ({"tools": TWO, "tool_choice": "must"}, "tool_choice", "must"),
        ({"tool_choice": "required"}, "tool_choice", "needs `tools`"),
        ({"tool_choice": {"type": "function", "function": {"name": "c"}}}, "tool_choice", "called 'c'"),
        ({"tools": TWO, "response_format": {"type": "json_object"}}, "tools", "exclude each other"),
        ({"tools": TWO, "grammar": 'root ::= "a"'}, "tools", "exclude each other"),
        ({"tools": TWO, "logprobs": True}, "tools", "`logprobs` exclude each other"),
        ({"functions": [{"name": "f"}]}, "functions", "send `tools`"),
        ({"function_call": {"name": "f"}}, "function_call", "send `tool_choice`"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role", "send `tool`"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "required"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages[0].tool_call_id", "this id"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]}, "messages[0].tool_call_id", "`tool`"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls", "assistant"),
        ({"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]}, "messages[0].reasoning_content",
         "assistant"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0].function",
         "required"),
        ({"chat_template_kwargs": {"enable_thinking": 1}}, "chat_template_kwargs.enable_thinking", "true or false"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", "no variable"),
        ({"chat_template_kwargs": 3}, "chat_template_kwargs", "object"),
    ],
)  # fmt: skip
def test_what_is_refused(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read(**fields)
    assert caught.value.param == param
    assert says in caught.value.message


def test_what_is_kept_of_tools_are_no_descriptions() -> None:
    """A client could fill a balancer's memory with them."""
    read(tools=[tool("kept", description="one")])
    before = _tools_grammar.cache_info()
    read(tools=[tool("kept", description="another")])
    after = _tools_grammar.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


@pytest.mark.parametrize("where", ["parameters", "variables", "form"])
def test_any_nesting_is_refused_or_done(where: str) -> None:
    """Writing JSON gives up at another depth than reading it."""
    told: set[str] = set()
    for depth in range(900, 1010):
        deep = '{"a":' * depth + "1" + "}" * depth
        field = {
            "parameters": f'"tools":[{{"type":"function","function":{{"name":"f","parameters":{deep}}}}}]',
            "variables": f'"chat_template_kwargs":{deep}',
            "form": f'"json_schema":{deep}',
        }[where]
        body = f'{{"model":"m","messages":[{{"role":"user","content":"x"}}],{field}}}'
        try:
            read_chat_call(body.encode(), 7)
        except InvalidField as error:
            told.add(error.message)
        except ClientException as error:
            told.add(error.detail)
    assert any("nested too deeply" in one for one in told)


@pytest.mark.anyio
async def test_a_large_body_is_read_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def noting(body: bytes, random_seed: int) -> chat.ChatCall:
        threads.append(threading.current_thread())
        return read_chat_call(body, random_seed)

    monkeypatch.setattr(chat, "read_chat_call", noting)
    for text in ("small", "x" * MAX_AT_ONCE):
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "tools": [tool()]}
        assert (await receive_chat_call(json.dumps(body).encode(), 7)).payload.tools
    assert [thread is threading.main_thread() for thread in threads] == [True, False]
