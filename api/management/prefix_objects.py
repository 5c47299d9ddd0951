"""Pinned prefixes as the management service takes and shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from api.openai.schema import ChatMessage
from api.openai.tool_schema import Tools
from paddler.prefixes.records import State
from paddler.prefixes.store import HeldBy, Shown
from paddler.tenants.records import Name
from paddler.wire.agent import Generate, Message, Tool, ToolCall

MAX_MESSAGES = 1000


class PinRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/v1/prefixes`: what conversations begin with (`messages`, and the `tools` that come with them), or raw
    prompts (`prompt`). Without `tenant` it is for everybody; `null` means absent."""

    name: Name
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: Tools | None = None
    prompt: str | None = None
    tenant: Name | None = None


class PrefixAgent(Struct, frozen=True, kw_only=True):
    """How an agent stands to it: `waiting` for its turn, `computing`, `resident` in its KV cache, `saved` in its host
    memory alone, or `refused`, and `detail` says why. `bytes` are what it holds of it."""

    agent: str
    agent_name: str | None
    state: State
    tokens: int
    bytes: int
    detail: str | None


class PrefixObject(Struct, frozen=True, kw_only=True):
    """`size` is bytes of what was sent, `tokens` what that is for the agents' model, null before one has looked.
    `hits`: requests that began with it and found it computed. `bytes` are what all agents hold of it."""

    name: str
    version: int
    tenant: str | None
    size: int
    created_at: str
    author: str
    tokens: int | None
    hits: int
    bytes: int
    agents: list[PrefixAgent]


class PrefixList(Struct, frozen=True):
    """By name."""

    prefixes: list[PrefixObject]


class ShownFunction(Struct, frozen=True, kw_only=True):
    name: str
    description: str | None
    parameters: Raw


class ShownTool(Struct, frozen=True):
    function: ShownFunction
    type: Literal["function"] = "function"


class ShownCallFunction(Struct, frozen=True):
    name: str
    arguments: str


class ShownCall(Struct, frozen=True):
    id: str
    function: ShownCallFunction
    type: Literal["function"] = "function"


class ShownMessage(Struct, frozen=True, kw_only=True):
    """As a client of OpenAI's protocol sends it."""

    role: str
    content: str
    name: str | UnsetType = UNSET
    tool_calls: list[ShownCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class WholePrefix(PrefixObject, frozen=True, kw_only=True):
    """With what it is, as it may be sent again."""

    messages: list[ShownMessage] | None
    tools: list[ShownTool]
    prompt: str | None


class RemovedPrefix(Struct, frozen=True):
    name: str
    removed: Literal[True] = True


def prefix_object(shown: Shown) -> PrefixObject:
    return PrefixObject(**_fields(shown))


def whole_prefix(shown: Shown, content: Generate) -> WholePrefix:
    messages = None if content.messages is None else [_message(one) for one in content.messages]
    return WholePrefix(
        **_fields(shown), messages=messages, tools=[_tool(one) for one in content.tools], prompt=content.prompt
    )


def _fields(shown: Shown) -> dict[str, Any]:
    prefix, agents = shown.prefix, [_agent(one) for one in shown.agents]
    return {
        "name": prefix.name,
        "version": prefix.version,
        "tenant": prefix.tenant,
        "size": prefix.record.num_bytes,
        "created_at": _time(prefix.record.created_ms),
        "author": prefix.record.author,
        "tokens": max((one.tokens for one in agents), default=0) or None,
        "hits": shown.hits,
        "bytes": sum(one.bytes for one in agents),
        "agents": agents,
    }


def _agent(one: HeldBy) -> PrefixAgent:
    held = one.held
    return PrefixAgent(
        agent=one.agent,
        agent_name=one.agent_name or None,
        state=held.state,
        tokens=held.num_tokens,
        bytes=held.num_bytes,
        detail=held.detail or None,
    )


def _message(message: Message) -> ShownMessage:
    return ShownMessage(
        role=message.role,
        content=message.content,
        name=UNSET if message.name is None else message.name,
        tool_calls=[_call(one) for one in message.tool_calls] or UNSET,
        tool_call_id=UNSET if message.tool_call_id is None else message.tool_call_id,
        reasoning_content=UNSET if message.reasoning_content is None else message.reasoning_content,
    )


def _call(call: ToolCall) -> ShownCall:
    return ShownCall(call.id, ShownCallFunction(call.name, call.arguments))


def _tool(tool: Tool) -> ShownTool:
    parameters = Raw(tool.parameters.encode())
    return ShownTool(ShownFunction(name=tool.name, description=tool.description, parameters=parameters))


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
