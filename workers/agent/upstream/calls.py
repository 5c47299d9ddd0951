"""The call of a server that a request becomes."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from paddler.engine import Job
from paddler.errors import InvalidField, UpstreamFailed
from paddler.wire.agent import Generate, Message
from workers.agent.upstream.dialects import Dialect
from workers.agent.upstream.messages import message_objects, template_fields, tool_fields
from workers.agent.upstream.sampling import sampling_fields
from workers.agent.upstream.server import Server

CHAT, COMPLETIONS, TEMPLATE = "/v1/chat/completions", "/v1/completions", "/apply-template"


class StreamCall(Struct, frozen=True):
    """`echo` and `echoed_thought` are what the server will tell first although the client has it."""

    path: str
    body: dict[str, Any]
    echo: str = ""
    echoed_thought: str = ""


def begin(job: Job, payload: Generate, server: Server) -> StreamCall:
    """The call of what has not begun, or is a raw prompt. Raises `InvalidField`, `UpstreamFailed`."""
    body = common_fields(job, payload, server)
    if payload.messages is None:
        return StreamCall(COMPLETIONS, body | raw_prompt(job, payload, server.dialect))
    return StreamCall(CHAT, body | chat_fields(payload, payload.messages, server))


def common_fields(job: Job, payload: Generate, server: Server) -> dict[str, Any]:
    """What all calls have, and what is refused whichever it is. Raises `InvalidField`."""
    dialect = server.dialect
    body: dict[str, Any] = {"model": server.model, "stream": True, "stream_options": {"include_usage": True}}
    body |= sampling_fields(payload.sampling, dialect)
    if payload.max_tokens is not None:
        body["max_tokens"] = payload.max_tokens - job.num_resumed
    if payload.stop:
        body["stop"] = list(payload.stop)
    if payload.grammar is not None:
        body |= _form(payload, payload.grammar, dialect)
    if dialect.tells_progress:
        body["return_progress"] = True
    if dialect.salts_cache and payload.cache_scope:
        body["cache_salt"] = payload.cache_scope
    return body


def _form(payload: Generate, grammar: str, dialect: Dialect) -> dict[str, Any]:
    """A schema where the server takes one: with a grammar a model that thinks could not."""
    if payload.schema and payload.messages is not None:
        schema: Any = json.loads(payload.schema)
        if schema == {"type": "object"}:
            return {"response_format": {"type": "json_object"}}
        form = {"name": "answer", "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    if dialect.grammar is None:
        name = "response_format" if payload.schema else "grammar"
        raise InvalidField(
            f"`{name}`: the server behind this model ({dialect.name}) cannot hold such an answer to it: leave it out.",
            param=name,
        )
    return {dialect.grammar: grammar}


def chat_fields(payload: Generate, messages: tuple[Message, ...], server: Server) -> dict[str, Any]:
    dialect = server.dialect
    body: dict[str, Any] = {"messages": message_objects(messages), **tool_fields(payload)}
    if dialect.takes_template_kwargs:
        body |= template_fields(payload)
    elif payload.template_kwargs:
        raise InvalidField(
            f"`chat_template_kwargs`: the server behind this model ({dialect.name}) does not know them: "
            "leave them out.",
            param="chat_template_kwargs",
        )
    if not payload.add_generation_prompt:
        if dialect.name not in ("llama.cpp", "vllm"):
            raise InvalidField(
                f"`add_generation_prompt`: the server behind this model ({dialect.name}) always begins an answer.",
                param="add_generation_prompt",
            )
        body["add_generation_prompt"] = False
    if payload.logprobs is not None:
        # Of some servers none come when no alternatives are asked for.
        body |= {"logprobs": True, "top_logprobs": max(payload.logprobs, 1)}
    return body


def raw_prompt(job: Job, payload: Generate, dialect: Dialect) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if payload.logprobs is not None:
        body["logprobs"] = max(payload.logprobs, 1)
    if payload.suffix is not None:
        if not dialect.takes_suffix:
            raise InvalidField(
                f"`suffix`: the server behind this model ({dialect.name}) takes none: leave it out.", param="suffix"
            )
        body["suffix"] = payload.suffix
    if payload.prompt_ids is None:
        if job.resume_text and dialect.templates_prompts:
            raise stuck(dialect, "a prompt that it has put into its template")
        return body | {"prompt": (payload.prompt or "") + job.resume_text}
    if not dialect.takes_tokens:
        raise InvalidField(f"`prompt`: {dialect.name} takes text, no tokens.", param="prompt")
    if not job.resume_text:
        return body | {"prompt": list(payload.prompt_ids)}
    if not dialect.mixes:
        raise stuck(dialect, "a prompt of tokens")
    return body | {"prompt": [*payload.prompt_ids, job.resume_text]}


def stuck(dialect: Dialect, what: str) -> UpstreamFailed:
    return UpstreamFailed(
        f"the agent that began this answer is gone, and the server that it came to ({dialect.name}) cannot go on with "
        f"{what} in the middle: send the request again"
    )
