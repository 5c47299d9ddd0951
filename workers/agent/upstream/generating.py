"""One job of generation: the server's stream in, events of an engine out."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from paddler.engine import Done, Event, Job, Progress, Retained
from paddler.errors import InvalidField, UpstreamFailed
from paddler.wire.agent import Generate
from paddler.wire.balancer import UNKNOWN_TOKEN, FinishReason, TextFormat, Usage
from workers.agent.upstream.calls import CHAT, StreamCall, stuck
from workers.agent.upstream.chunks import Choice, Chunk, ChunkUsage, Timings, logprobs_of, read_chunk
from workers.agent.upstream.client import UpstreamClient
from workers.agent.upstream.continuing import Caller
from workers.agent.upstream.server import Server
from workers.agent.upstream.trouble import Broken, Refused
from workers.agent.upstream.written import Begun, Writer, format_for

Put = Callable[[Event], None]

_REASONS = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.STOP,
    "function_call": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}
PLAIN = TextFormat()


class Generation:
    """`run` puts events, the last of which it returns, and raises `UpstreamTrouble`; cancelled, it closes the
    connection. `usage` is what is known of it at any time."""

    def __init__(
        self, job: Job, payload: Generate, server: Server, client: UpstreamClient, caller: Caller, put: Put
    ) -> None:
        self._caller = caller
        self._job = job
        self._payload = payload
        self._server = server
        self._client = client
        self._put = put
        # What has been written stays as it is: the rest is written in the same format.
        has_begun = bool(job.resume_text) or job.resume_format is not None
        self._format = (job.resume_format or PLAIN) if has_begun else format_for(payload)
        self._writer = Writer(self._format, Begun(self._format, job.resume_text))
        self._num_earlier = job.num_resumed
        self._num_tokens = 0
        self._num_prompt = self._num_cached = 0
        self._reason: FinishReason | None = None
        self._stop: str | None = None
        self._has_told = False
        self._call = StreamCall("", {})

    @property
    def usage(self) -> Usage:
        return Usage(self._num_prompt, self._num_earlier + self._num_tokens, self._num_cached)

    async def run(self) -> Done:
        most = self._payload.max_tokens
        if most is not None and most <= self._num_earlier:
            return Done(self._job.request_id, FinishReason.LENGTH, self.usage)
        call = self._call = await self._caller.call_for(self._job, self._payload, self._format)
        if call.path not in self._server.paths:
            raise Refused(_missing(call.path))
        async with self._client.events(call.path, call.body) as events:
            async for data in events:
                if data is not None:
                    self._take(read_chunk(data))
        if self._reason is None:
            raise Broken("the server's stream ended before its answer did")
        return Done(self._job.request_id, self._reason, self.usage, self._writer.finish(), stop=self._stop)

    def _take(self, chunk: Chunk) -> None:
        if chunk.prompt_progress is not None:
            self._count_prompt(chunk.prompt_progress.total, chunk.prompt_progress.cache)
        if chunk.usage is not None:
            self._count(chunk.usage)
        elif chunk.timings is not None:
            self._time(chunk.timings)
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._choose(choice)

    def _choose(self, choice: Choice) -> None:
        text = choice.text or ""
        if (delta := choice.delta) is not None:
            if thought := self._new_thought(delta.reasoning_content or delta.reasoning or ""):
                text += self._writer.reasoning(thought)
            if said := self._new(delta.content or delta.refusal or ""):
                text += self._writer.content(said)
            if delta.tool_calls:
                text += self._writer.calls(delta.tool_calls)
        if text or (choice.logprobs is not None and (choice.logprobs.content or choice.logprobs.tokens)):
            self._progress(text, choice)
        if choice.finish_reason is not None:
            self._finish(choice)

    def _new(self, text: str) -> str:
        """What of it the client has not got yet."""
        told = self._cut(text, self._call.echo)
        self._call = structs.replace(self._call, echo=self._call.echo[len(text) - len(told) :])
        return told

    def _new_thought(self, text: str) -> str:
        told = self._cut(text, self._call.echoed_thought)
        rest = self._call.echoed_thought[len(text) - len(told) :]
        self._call = structs.replace(self._call, echoed_thought=rest)
        return told

    def _cut(self, text: str, echo: str) -> str:
        size = min(len(echo), len(text))
        if text[:size] != echo[:size]:
            raise Refused(stuck(self._server.dialect, "this answer"))
        return text[size:]

    def _progress(self, text: str, choice: Choice) -> None:
        logprobs = ()
        if (num_top := self._payload.logprobs) is not None:
            if choice.logprobs is None:
                raise Refused(
                    InvalidField("`logprobs`: the server behind this model tells none: leave it out.", param="logprobs")
                )
            logprobs = logprobs_of(choice.logprobs, num_top)
        if not self._has_told:
            self._has_told = True
            if self._format != PLAIN or self._num_prompt:
                format = None if self._format == PLAIN else self._format
                total = self._num_prompt
                self._put(Retained(self._job.request_id, total, total, self._num_cached, format))
        ids = (UNKNOWN_TOKEN,) * max(len(logprobs), 1)
        self._num_tokens += len(ids)
        self._put(Progress(self._job.request_id, ids, text, logprobs=logprobs))

    def _finish(self, choice: Choice) -> None:
        if choice.finish_reason == "content_filter":
            raise Refused(UpstreamFailed("the server's content filter has ended this answer"))
        if choice.finish_reason == "error":
            raise Broken("the server ended its answer with an error")
        self._reason = _REASONS.get(choice.finish_reason or "", FinishReason.STOP)
        if isinstance(choice.stop_reason, str) and choice.stop_reason in self._payload.stop:
            self._stop = choice.stop_reason

    def _count(self, usage: ChunkUsage) -> None:
        details = usage.prompt_tokens_details
        self._count_prompt(usage.prompt_tokens, (details.cached_tokens if details else None) or 0)
        if usage.completion_tokens:
            self._num_tokens = usage.completion_tokens

    def _time(self, timings: Timings) -> None:
        self._count_prompt(timings.prompt_n + timings.cache_n, timings.cache_n)
        if timings.predicted_n:
            self._num_tokens = timings.predicted_n

    def _count_prompt(self, num_tokens: int, num_cached: int) -> None:
        """What earlier attempts have generated is in this prompt, and counts as output."""
        if num_tokens:
            self._num_prompt = max(num_tokens - self._num_earlier, 0)
            self._num_cached = min(max(num_cached, 0), self._num_prompt)


def _missing(path: str) -> InvalidField:
    if path == CHAT:
        return InvalidField("the server behind this model takes no messages: send a prompt.", param="messages")
    return InvalidField("the server behind this model takes no raw prompts: send messages.", param="prompt")
