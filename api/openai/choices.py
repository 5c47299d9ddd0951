"""`n` choices of a chat completion: as many requests of the queue, which share the prompt in a prefix cache."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from api.openai.completion import ChatStream, chat_completion, choice_object
from api.openai.label import ChatLabel
from api.parts import Part
from paddler.errors import EngineFailed, PaddlerError
from paddler.jobs.heard import Heard
from paddler.wire.agent import Generate
from paddler.wire.balancer import Finished, Tokens, Usage

_SEED_STEP = 0x9E3779B1  # odd, so that no two of 2**32 are equal


def choice_payloads(payload: Generate, n: int) -> list[Generate]:
    """Each with a seed of its own; the first is what a request for one would be."""
    return [_with_seed(payload, (payload.sampling.seed + index * _SEED_STEP) % 2**32) for index in range(n)]


def render_choices(parts: Sequence[Heard], label: ChatLabel) -> list[bytes]:
    """One completion, with the id of the first. The prompt counts once, as at OpenAI."""
    ends = [part.end for part in parts if part.end is not None]
    if len(ends) != len(parts):
        raise EngineFailed(f"{len(parts)} choices were asked for, {len(ends)} came; the agents' logs may say why.")
    first = parts[0]
    said = Finished(ends[0].reason, _usage(ends))
    whole = chat_completion(first.reply.request_id, first.tokens, said, label, first.reply.route.format)
    for index, (part, end) in enumerate(zip(parts, ends, strict=True)):
        if index:
            # Its own id: no two calls of tools are called alike.
            reply = part.reply
            choice = choice_object(reply.request_id, part.tokens, end, label, reply.route.format)
            choice["index"] = index
            whole["choices"].append(choice)
    return [msgspec.json.encode(whole)]


class ChoiceStream:
    """Renders several choices as `text/event-stream`, each chunk with the index of its choice. It does no I/O."""

    def __init__(self, request_id: str, label: ChatLabel) -> None:
        """`request_id` is that of the first."""
        self._request_id = request_id
        self._label = label
        self._whole = ChatStream(request_id, label)
        self._choices: dict[int, ChatStream] = {}

    def tokens(self, part: Part, frame: Tokens) -> bytes:
        return self._choice(part).tokens(frame.text, frame.logprobs)

    def finished(self, part: Part, end: Finished) -> bytes:
        return self._choice(part).finish(end.reason)

    def alive(self) -> bytes:
        return self._whole.alive()

    def over(self, ends: Sequence[Finished]) -> bytes:
        return self._whole.over(_usage(ends))

    def failed(self, error: PaddlerError) -> bytes:
        return self._whole.failed(error)

    def _choice(self, part: Part) -> ChatStream:
        if part.index not in self._choices:
            reply = part.reply
            self._choices[part.index] = ChatStream(
                self._request_id, self._label, index=part.index, route=reply.route, calls_of=reply.request_id
            )
        return self._choices[part.index]


def _usage(ends: Sequence[Finished]) -> Usage:
    return Usage(
        ends[0].usage.prompt_tokens,
        sum(end.usage.completion_tokens for end in ends),
        min(end.usage.cached_tokens for end in ends),
    )


def _with_seed(payload: Generate, seed: int) -> Generate:
    return msgspec.structs.replace(payload, sampling=msgspec.structs.replace(payload.sampling, seed=seed))
