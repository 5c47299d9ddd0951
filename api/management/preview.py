"""What a chat template makes of a conversation, before anybody uses it.

An agent that serves the pool's model renders it, as a template writes tokens that only the model's vocabulary has. It
needs no slot and is no request of the queue, so that a page may ask at every key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec.structs import asdict, replace

from api.body import AnyRequest, read_aside, read_json_body
from api.management.asking import json_answer, paths, pool_in
from api.management.preview_operation import DECODER, PREVIEW, PreviewObject, PreviewRequest
from api.management.view import PoolWatches
from api.openai.chat import chat_call_of
from api.openai.schema import NOT_YET, ChatRequest
from api.validation import decode_body
from paddler.errors import Conflict, InvalidField, QueueUnavailable
from paddler.images import images_of
from paddler.jobs.enquiry import ANSWER_S, AgentAway, AgentSilent, UnknownAgent, enquire
from paddler.jobs.lanes import Lane
from paddler.payload import MAX_QUESTION_BYTES
from paddler.store.client import TROUBLE, Store
from paddler.wire.agent import Generate, Sampling, TryTemplate
from paddler.wire.trials import decode_trial

MAX_BYTES = MAX_QUESTION_BYTES // 4
MAX_TRIES = 2
"""Agents that are asked: one may have gone, or be too old."""
_ABLE = ("ready", "draining", "drained")


def preview_routes(store: Store, watches: PoolWatches) -> list[HTTPRouteHandler]:
    @post(paths("chat_template_preview"), status_code=200, operation=PREVIEW)
    async def preview_chat_template(request: AnyRequest) -> ASGIApp:
        """Rendered as for a request, by an agent; a template that loops for long is stopped after a second."""
        pool = await pool_in(request, store)
        body = await read_json_body(request)
        if len(body) > MAX_BYTES:
            raise InvalidField(f"A preview has at most {MAX_BYTES} bytes, not {len(body)}.")
        template, asked = await read_aside(body, read_preview)
        lanes = agents_for((await watches.of(pool).pool()).lanes)
        if not lanes:
            raise Conflict(
                f"No agent of the pool {pool} serves a model, and only a model knows the tokens that a template "
                "writes: let one serve the model first.",
            )
        try:
            told = await _ask_one(pool, lanes, asked, template)
        except TROUBLE as error:
            raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error
        return told or _silence()

    async def _ask_one(pool: str, lanes: Sequence[Lane], asked: Generate, template: str | None) -> ASGIApp | None:
        """None: nobody has answered."""
        for lane in lanes[:MAX_TRIES]:
            with contextlib.suppress(UnknownAgent, AgentAway, AgentSilent):
                body = await enquire(store, pool, lane.agent, lambda question: TryTemplate(question, asked, template))
                told = asdict(decode_trial(body))
                return json_answer(
                    PreviewObject(**told, agent=lane.agent, agent_name=lane.name or None, model=lane.model or None)
                )
        return None

    return [preview_chat_template]


def read_preview(body: bytes) -> tuple[str | None, Generate]:
    """The template, and what it is to render. Raises `InvalidField`, or `ClientException` for bytes that are no
    JSON."""
    asked: PreviewRequest = decode_body(body, DECODER, NOT_YET)
    request = ChatRequest(
        model="default",
        messages=asked.messages,
        tools=asked.tools,
        tool_choice=asked.tool_choice,
        parallel_tool_calls=asked.parallel_tool_calls,
        chat_template_kwargs=asked.chat_template_kwargs,
    )
    payload = chat_call_of(request, random_seed=0).payload
    for name, _ in images_of(payload):
        raise InvalidField(f"`{name}`: a preview is of text alone; leave images out.", param=name)
    begins_answer = asked.add_generation_prompt is not False
    return asked.chat_template, replace(payload, add_generation_prompt=begins_answer, sampling=Sampling())


def agents_for(lanes: Sequence[Lane]) -> list[Lane]:
    """Those that serve a model, the one that has least to do first."""
    able = [lane for lane in lanes if lane.state in _ABLE and not lane.is_lost]
    return sorted(able, key=lambda lane: (lane.state != "ready", lane.requests, lane.agent))


def _silence() -> ASGIResponse:
    words = f"No agent has answered within {ANSWER_S:g} s: they may be busy, or of an older version."
    return ASGIResponse(body=words.encode(), status_code=504, headers={"content-type": "text/plain; charset=utf-8"})
