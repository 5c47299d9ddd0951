"""From a request's payload to prompt tokens, with every check that needs the model."""

from __future__ import annotations

import numpy as np

from paddler.errors import ContextExceeded, InvalidField
from paddler.wire.agent import Generate
from workers.agent.llama import Model, TokenArray
from workers.agent.sampling import check_sampling
from workers.agent.templates import ChatTemplate

MAX_STOPS = 64
MAX_STOP_CHARS = 4096


def check_payload(payload: Generate) -> None:
    """Raises `InvalidField` for what needs no model to be seen as wrong."""
    if (payload.messages is None) == (payload.prompt is None):
        raise InvalidField("give exactly one of messages and prompt", param="messages")
    if payload.messages is not None and not payload.messages:
        raise InvalidField("messages must not be empty", param="messages")
    if payload.max_tokens is not None and payload.max_tokens < 0:
        raise InvalidField(f"max_tokens must not be negative, but is {payload.max_tokens}", param="max_tokens")
    if len(payload.stop) > MAX_STOPS:
        raise InvalidField(f"at most {MAX_STOPS} stop strings are allowed, not {len(payload.stop)}", param="stop")
    if not all(0 < len(stop) <= MAX_STOP_CHARS for stop in payload.stop):
        raise InvalidField(f"a stop string must have 1 to {MAX_STOP_CHARS} characters", param="stop")
    check_sampling(payload.sampling)


class PromptEncoder:
    """Prompt tokens of requests for one model; `max_tokens` is the longest sequence, output included."""

    def __init__(self, model: Model, template: ChatTemplate | None, *, name: str, max_tokens: int) -> None:
        self._model = model
        self._template = template
        self._name = name
        self._max_tokens = max_tokens

    def encode(self, payload: Generate) -> TokenArray:
        """Raises `InvalidField`, or `ContextExceeded` when no room is left for one token of output.

        Control tokens written in the text count as control tokens, as in llama-server: a chat template writes
        them so, and a raw prompt has no other way to. The beginning-of-sequence token is added when the model
        wants it and the text does not begin with it.
        """
        if payload.prompt is not None:
            text, param = payload.prompt, "prompt"
        else:
            text, param = self._render(payload), "messages"
        least = len(text.encode("utf-8", "replace")) // max(self._model.max_piece, 1)
        if least > self._max_tokens:
            # Seen without tokenising, which takes time in proportion to the length.
            raise self._too_long(f"at least {least}", param)
        tokens = self._model.tokenize(text)
        if self._model.adds_bos and self._model.bos >= 0 and (not len(tokens) or tokens[0] != self._model.bos):
            tokens = np.concatenate([np.array([self._model.bos], np.int32), tokens])
        if not len(tokens):
            raise InvalidField("the prompt is empty", param=param)
        if len(tokens) >= self._max_tokens:
            raise self._too_long(str(len(tokens)), param)
        return tokens

    def _render(self, payload: Generate) -> str:
        if self._template is None:
            raise InvalidField(f"{self._name} has no usable chat template: send a prompt instead", param="messages")
        messages = payload.messages or ()
        if len(messages) > self._max_tokens:
            raise self._too_long(f"at least {len(messages)}", "messages")
        return self._template.render(messages, add_generation_prompt=payload.add_generation_prompt)

    def _too_long(self, num_tokens: str, param: str) -> ContextExceeded:
        return ContextExceeded(
            f"the prompt has {num_tokens} tokens, but the context holds {self._max_tokens}, the output included",
            param=param,
        )
