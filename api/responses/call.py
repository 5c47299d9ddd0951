"""`POST /v1/responses`: from a body to a payload for the queue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
from msgspec import Struct, structs

from api.body import read_aside
from api.openai.sampling import read_sampling
from api.openai.schema import ChatRequest, NamedSchema, ResponseFormat
from api.openai.structure import read_grammar, read_schema
from api.openai.tool_schema import FunctionName, FunctionPart, NamedChoice, ToolChoicePart, ToolPart
from api.openai.tools import read_tool_choice, read_tools, read_variables
from api.responses.item_schema import Item, ReferenceItem
from api.responses.items import Conversation, read_items
from api.responses.nested import decode_within, type_of
from api.responses.schema import NOT_YET, AllowedTools, FunctionChoice, FunctionTool, ResponsesRequest
from api.responses.told import told_as_response
from api.validation import decode_body, unsupported
from paddler.chat_formats.variables import ENABLE_THINKING
from paddler.errors import InvalidField
from paddler.images import check_images
from paddler.wire.agent import Generate

DECODER = msgspec.json.Decoder(ResponsesRequest)
_tool_decoder = msgspec.json.Decoder(FunctionTool)
_TOOL_NOT_YET = {name.removeprefix("tools[]."): words for name, words in NOT_YET.items() if name.startswith("tools[].")}
_SAME = (
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "top_k", "min_p", "repeat_penalty"),
    *("stop", "parallel_tool_calls", "top_logprobs"),
)

LOGPROBS = "message.output_text.logprobs"
_OF_OTHER_TOOLS = ("file_search_call", "web_search_call", "computer_call_output", "code_interpreter_call")


class ResponseCall(Struct, frozen=True):
    """A checked request. `payload` says everything but the conversation, which is `items` after the instructions and
    the turns of an earlier response; what they refer to is looked up before."""

    request: ResponsesRequest
    tools: tuple[FunctionTool, ...]
    items: list[Item | ReferenceItem]
    payload: Generate

    @property
    def is_background(self) -> bool:
        return bool(self.request.background)

    @property
    def is_stored(self) -> bool:
        return self.request.store is not False

    def generate(self, items: Sequence[Item], earlier: Sequence[tuple[str, Sequence[Item]]] = ()) -> Generate:
        """The whole payload; `earlier` are the items of the turns before, and what each list is called. Raises
        `InvalidField`."""
        conversation = Conversation(self.request.instructions)
        for name, before in earlier:
            conversation.add(before, name)
        conversation.add(items)
        payload = structs.replace(self.payload, messages=conversation.messages())
        with told_as_response():
            check_images(payload)
        return payload


async def receive_response_call(body: bytes, random_seed: int) -> ResponseCall:
    """As `read_response_call`, in a thread if it may take long."""
    return await read_aside(body, partial(read_response_call, random_seed=random_seed))


def read_response_call(body: bytes, random_seed: int) -> ResponseCall:
    """Decode, check and translate a body; `random_seed` (32 bits) serves requests that name no seed.

    Raises `InvalidField`, or `ClientException` for bytes that are no JSON.
    """
    request = decode_body(body, DECODER, NOT_YET)
    _check_ways(request)
    tools = tuple(_tool(f"tools[{index}]", bytes(data)) for index, data in enumerate(request.tools or ()))
    choice, allowed = _tool_choice(request, tools)
    chat = _as_chat(request, tools, choice)
    with told_as_response():
        known = read_tools(chat)
        tool_choice, tool_name = read_tool_choice(chat, known)
        payload = Generate(
            max_tokens=request.max_output_tokens,
            stop=_stop(request),
            sampling=read_sampling(chat, random_seed),
            grammar=read_grammar(chat),
            schema=read_schema(chat),
            logprobs=_logprobs(request),
            tools=tuple(tool for tool in known if allowed is None or tool.name in allowed),
            tool_choice=tool_choice,
            tool_name=tool_name,
            parallel_tool_calls=request.parallel_tool_calls is not False,
            template_kwargs=read_variables(chat),
        )
    if payload.callable_tools:
        other = "`text.format`" if payload.grammar is not None else "log probabilities"
        if payload.grammar is not None or payload.logprobs is not None:
            raise InvalidField(
                f"`tools` and {other} exclude each other; leave one out, or set `tool_choice` to `none`.", param="tools"
            )
    return ResponseCall(request, tools, read_items(request.input or ()), payload)


def _check_ways(request: ResponsesRequest) -> None:
    """How it is to be answered."""
    options = request.stream_options
    if options is not None and not request.stream:
        raise InvalidField("`stream_options` needs `stream` to be true.", param="stream_options")
    if options is not None and options.include_obfuscation:
        raise unsupported("stream_options.include_obfuscation", "`include_obfuscation`")
    if request.background and request.store is False:
        raise InvalidField("`background` needs `store`: nobody could read the response.", param="store")
    for include in request.include or ():
        if include.startswith(_OF_OTHER_TOOLS):
            raise unsupported("include", f"`{include}` in `include`")
    if request.top_logprobs and LOGPROBS not in (request.include or ()):
        raise InvalidField(f"`top_logprobs` needs `{LOGPROBS}` in `include`.", param="top_logprobs")


def _tool(where: str, data: bytes) -> FunctionTool:
    kind = type_of(where, data)
    if kind not in (None, "function"):
        raise unsupported(f"{where}.type", f"A tool of type `{kind[:60]}`")
    return decode_within(where, data, _tool_decoder, _TOOL_NOT_YET)


def _as_chat(request: ResponsesRequest, tools: Sequence[FunctionTool], choice: ToolChoicePart | None) -> ChatRequest:
    """What a chat completion would say of it, the conversation apart."""
    return ChatRequest(
        model=request.model,
        messages=[],
        tools=[
            ToolPart("function", FunctionPart(tool.name, tool.description, tool.parameters, tool.strict))
            for tool in tools
        ],
        tool_choice=choice,
        response_format=_response_format(request),
        chat_template_kwargs=_variables(request),
        **{name: getattr(request, name) for name in _SAME},
    )


def _tool_choice(
    request: ResponsesRequest, tools: Sequence[FunctionTool]
) -> tuple[ToolChoicePart | None, frozenset[str] | None]:
    """The choice, and the names of the tools it is among; None is all."""
    match request.tool_choice:
        case FunctionChoice(name):
            return NamedChoice("function", FunctionName(name)), None
        case AllowedTools(mode, allowed):
            names = frozenset(tool.name for tool in allowed)
            if unknown := names - {tool.name for tool in tools}:
                name = min(unknown)
                raise InvalidField(
                    f"`tool_choice.tools`: `tools` has none that is called {name[:64]!r}.", param="tool_choice.tools"
                )
            return mode, names
        case choice:
            return choice, None


def _response_format(request: ResponsesRequest) -> ResponseFormat | None:
    format = None if request.text is None else request.text.format
    if format is None:
        return None
    if format.type != "json_schema":
        for name in ("name", "schema", "description", "strict"):
            if getattr(format, name) is not None:
                raise InvalidField(
                    f"`text.format.{name}` needs type `json_schema`, not `{format.type}`.", param=f"text.format.{name}"
                )
        return ResponseFormat(format.type)
    for name in ("name", "schema"):
        if getattr(format, name) is None:
            raise InvalidField(f"`text.format.{name}` is required.", param=f"text.format.{name}")
    assert format.name is not None
    return ResponseFormat("json_schema", NamedSchema(format.name, format.schema))


def _variables(request: ResponsesRequest) -> dict[str, object] | None:
    variables = dict(request.chat_template_kwargs or {})
    if ENABLE_THINKING in variables:
        param = f"chat_template_kwargs.{ENABLE_THINKING}"
        raise InvalidField(f"`{param}`: send `reasoning.effort`, `none` for false.", param=param)
    if request.reasoning is not None and request.reasoning.effort is not None:
        variables[ENABLE_THINKING] = request.reasoning.effort != "none"
    return variables or None


def _logprobs(request: ResponsesRequest) -> int | None:
    return (request.top_logprobs or 0) if LOGPROBS in (request.include or ()) else None


def _stop(request: ResponsesRequest) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(dict.fromkeys(request.stop))
