"""`n` choices of a chat completion: as many requests of the queue, which share the prompt in a prefix cache."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from api.gathered import Part
from api.openai.completion import chat_completion, choice_object
from api.openai.label import ChatLabel
from paddler.errors import EngineFailed
from paddler.wire.agent import Generate
from paddler.wire.balancer import Finished, Usage

_SEED_STEP = 0x9E3779B1  # odd, so that no two of 2**32 are equal


def choice_payloads(payload: Generate, n: int) -> list[Generate]:
    """Each with a seed of its own; the first is what a request for one would be."""
    return [_with_seed(payload, (payload.sampling.seed + index * _SEED_STEP) % 2**32) for index in range(n)]


def render_choices(parts: Sequence[Part], label: ChatLabel) -> list[bytes]:
    """One completion, with the id of the first. The prompt counts once, as at OpenAI."""
    ends = [part.end for part in parts if part.end is not None]
    if len(ends) != len(parts):
        raise EngineFailed(f"{len(parts)} choices were asked for, {len(ends)} came; the agents' logs may say why.")
    usage = Usage(
        ends[0].usage.prompt_tokens,
        sum(end.usage.completion_tokens for end in ends),
        min(end.usage.cached_tokens for end in ends),
    )
    first = parts[0]
    whole = chat_completion(
        first.reply.request_id, first.tokens, Finished(ends[0].reason, usage), label, first.reply.route.format
    )
    for index, (part, end) in enumerate(zip(parts, ends, strict=True)):
        if index:
            # Its own id: no two calls of tools are called alike.
            reply = part.reply
            choice = choice_object(reply.request_id, part.tokens, end, label, reply.route.format)
            whole["choices"].append(choice | {"index": index})
    return [msgspec.json.encode(whole)]


def _with_seed(payload: Generate, seed: int) -> Generate:
    return msgspec.structs.replace(payload, sampling=msgspec.structs.replace(payload.sampling, seed=seed))
