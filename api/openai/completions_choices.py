"""Several choices of a completion, of one prompt or of several: as many requests of the queue."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from api.openai.choices import choice_payloads
from api.openai.completions_call import CompletionCall
from api.openai.completions_objects import TextChoice
from api.openai.completions_render import CompletionStream, completion_choice, whole_completion
from api.openai.label import CompletionLabel
from api.parts import Part
from paddler.errors import EngineFailed, PaddlerError
from paddler.jobs.heard import Heard
from paddler.wire.agent import Generate
from paddler.wire.balancer import Finished, Tokens, Usage


def candidates(call: CompletionCall) -> list[Generate]:
    """The payloads, those of a prompt together, each with a seed of its own."""
    return [payload for prompt in call.prompts for payload in choice_payloads(prompt, call.best_of)]


def render_completions(parts: Sequence[Heard], call: CompletionCall, labels: Sequence[CompletionLabel]) -> list[bytes]:
    """One completion, with the id of the first; `labels` are those of the prompts. Of the candidates of each prompt the
    `n` with the greatest mean log probability of a token, the best first; usage counts all of them."""
    ends = [part.end for part in parts if part.end is not None]
    if len(ends) != len(call.prompts) * call.best_of:
        raise EngineFailed(f"{len(parts)} choices were asked for, {len(ends)} came; the agents' logs may say why.")
    choices: list[TextChoice] = []
    for number, label in enumerate(labels):
        own = list(zip(parts, ends, strict=True))[number * call.best_of : (number + 1) * call.best_of]
        if call.best_of > call.n:
            own.sort(key=lambda one: _mean_logprob(one[0].tokens), reverse=True)
        for part, end in own[: call.n]:
            choices.append(completion_choice(len(choices), part.tokens, end, label))
    usage = total_usage(ends, call.best_of)
    return [msgspec.json.encode(whole_completion(parts[0].reply.request_id, choices, usage, labels[0]))]


class CompletionChoiceStream:
    """Renders several choices as `text/event-stream`, each chunk with the index of its choice. It does no I/O."""

    def __init__(self, request_id: str, call: CompletionCall, labels: Sequence[CompletionLabel]) -> None:
        """`request_id` is that of the first, `labels` are those of the prompts."""
        self._request_id = request_id
        self._call = call
        self._labels = labels
        self._whole = CompletionStream(request_id, labels[0])
        self._choices: dict[int, CompletionStream] = {}

    def tokens(self, part: Part, frame: Tokens) -> bytes:
        return self._choice(part).tokens(frame.text, frame.logprobs)

    def finished(self, part: Part, end: Finished) -> bytes:
        return self._choice(part).finish(end.reason)

    def alive(self) -> bytes:
        return self._whole.alive()

    def over(self, ends: Sequence[Finished]) -> bytes:
        return self._whole.over(total_usage(ends, self._call.best_of))

    def failed(self, error: PaddlerError) -> bytes:
        return self._whole.failed(error)

    def _choice(self, part: Part) -> CompletionStream:
        if part.index not in self._choices:
            label = self._labels[part.index // self._call.best_of]
            self._choices[part.index] = CompletionStream(self._request_id, label, index=part.index)
        return self._choices[part.index]


def total_usage(ends: Sequence[Finished], per_prompt: int) -> Usage:
    """A prompt counts once, whatever is made of it."""
    firsts = range(0, len(ends), per_prompt)
    return Usage(
        sum(ends[first].usage.prompt_tokens for first in firsts),
        sum(end.usage.completion_tokens for end in ends),
        sum(min(end.usage.cached_tokens for end in ends[first : first + per_prompt]) for first in firsts),
    )


def _mean_logprob(said: Sequence[Tokens]) -> float:
    values = [one.logprob for frame in said for one in frame.logprobs]
    return sum(values) / len(values) if values else -math.inf
