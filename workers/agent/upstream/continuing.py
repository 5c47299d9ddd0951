"""How a server goes on with an answer from where an earlier attempt was, without telling anything twice."""

from __future__ import annotations

import msgspec
from msgspec import Struct, structs

from paddler.engine import Job
from paddler.errors import InvalidField, UpstreamFailed
from paddler.images import images_of
from paddler.wire.agent import Generate, Message
from paddler.wire.balancer import TextFormat
from workers.agent.upstream.calls import (
    CHAT,
    COMPLETIONS,
    StreamCall,
    begin,
    chat_fields,
    common_fields,
    raw_prompt,
    stuck,
)
from workers.agent.upstream.client import UpstreamClient
from workers.agent.upstream.server import Server
from workers.agent.upstream.trouble import EndpointOff, Refused
from workers.agent.upstream.written import Begun

TEMPLATE = "/apply-template"
_TRIAL = "The word is trial"


class _Rendered(Struct):
    prompt: str


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Message


class _Answer(Struct):
    choices: list[_Choice]


class Caller:
    """Makes the calls for one server."""

    def __init__(self, server: Server, client: UpstreamClient) -> None:
        self._server = server
        self._client = client
        self._has_echo: bool | None = None

    async def call_for(self, job: Job, payload: Generate, format: TextFormat) -> StreamCall:
        """Raises `UpstreamTrouble`; `Refused` where the answer would become another, or be told twice."""
        try:
            if payload.messages is None or not (job.resume_text or payload.beginning):
                return begin(job, payload, self._server)
            return await self._continued(job, payload, payload.messages, Begun(format, job.resume_text))
        except (InvalidField, UpstreamFailed) as error:
            raise Refused(error) from None

    async def _continued(self, job: Job, payload: Generate, messages: tuple[Message, ...], begun: Begun) -> StreamCall:
        dialect, said = self._server.dialect, begun.said
        if dialect.continuation == "none" and not job.resume_text:
            raise InvalidField(
                f"`messages`: the server behind this model ({dialect.name}) begins its answers itself: let the last "
                "message be the user's.",
                param="messages",
            )
        if dialect.continuation == "none":
            raise stuck(dialect, "an answer")
        if said.calls:
            raise stuck(dialect, "an answer that calls tools")
        if job.resume_text and payload.grammar is not None:
            # It would begin anew, in the middle of what it describes.
            raise stuck(dialect, "an answer of a given form")
        is_text = not (begun.is_thinking or said.reasoning or payload.callable_tools or any(images_of(payload)))
        if is_text and dialect.renders:
            try:
                return await self._rendered(job, payload, messages)
            except EndpointOff:
                pass  # an older version
        if dialect.continuation == "template":
            raise stuck(dialect, "an answer with reasoning, tools or images")
        if begun.is_thinking and dialect.continuation != "message":
            raise stuck(dialect, "a thought")
        last = Message("assistant", payload.beginning + said.content, reasoning_content=said.reasoning or None)
        body = common_fields(job, payload, self._server) | chat_fields(payload, (*messages, last), self._server)
        if dialect.continuation == "flags":
            return StreamCall(CHAT, body | {"continue_final_message": True, "add_generation_prompt": False})
        if not await self._echoes():
            return StreamCall(CHAT, body)
        return StreamCall(CHAT, body, echo=last.content, echoed_thought=said.reasoning)

    async def _rendered(self, job: Job, payload: Generate, messages: tuple[Message, ...]) -> StreamCall:
        """Behind the prompt as the server renders it."""
        plain = structs.replace(payload, logprobs=None)
        body = {"model": self._server.model, **chat_fields(plain, messages, self._server)}
        try:
            prompt = msgspec.convert(await self._client.post(TEMPLATE, body), _Rendered).prompt
        except msgspec.ValidationError:
            raise stuck(self._server.dialect, "an answer") from None
        raw = Generate(prompt=prompt + payload.beginning, logprobs=payload.logprobs)
        fields = common_fields(job, payload, self._server) | raw_prompt(job, raw, self._server.dialect)
        return StreamCall(COMPLETIONS, fields)

    async def _echoes(self) -> bool:
        """Some versions of llama-server begin their stream with the message that they continue, others behind it: one
        token tells."""
        if self._has_echo is None:
            messages = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": _TRIAL}]
            body = {"model": self._server.model, "messages": messages, "max_tokens": 1}
            try:
                answer = msgspec.convert(await self._client.post(CHAT, body), _Answer)
                self._has_echo = (answer.choices[0].message.content or "").startswith(_TRIAL)
            except (msgspec.ValidationError, IndexError):
                raise stuck(self._server.dialect, "an answer") from None
        return self._has_echo
