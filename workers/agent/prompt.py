"""From a request's payload to prompt tokens, with the checks that need the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
import structlog
from msgspec.structs import replace

from paddler.chat_formats.families import THOUGHTS
from paddler.engine import ModelError
from paddler.errors import ContextExceeded, InvalidField
from paddler.issues import Issue, issue_of
from paddler.wire.agent import Generate, Message
from workers.agent.chat_form import Forms
from workers.agent.llama import Model
from workers.agent.raw_prompts import around_gap, known_tokens
from workers.agent.rendering import template_variables
from workers.agent.templates import ChatTemplate, TemplateError, check_template
from workers.agent.tokens import TokenArray, num_common

log = structlog.get_logger(__name__)


class PromptEncoder:
    """Prompt tokens of requests for one model; `max_tokens` is the longest sequence, output included."""

    def __init__(self, model: Model, template: ChatTemplate | None, *, name: str, max_tokens: int) -> None:
        self._model = model
        self._template = template
        self._name = name
        self._max_tokens = max_tokens
        self.forms = Forms(model, template)

    def use(self, template: ChatTemplate | None) -> None:
        """Make prompts with this template from now on."""
        self._template = template
        self.forms = Forms(self._model, template)

    def encode(self, payload: Generate) -> TokenArray:
        """Raises `InvalidField`, or `ContextExceeded` when no room is left for one token of output.

        Control tokens written in the text count as control tokens, as in llama-server: a chat template writes
        them so, and a raw prompt has no other way to. The beginning-of-sequence token is added when the model
        wants it and the text does not begin with it; never to a prompt that is tokens.
        """
        if payload.prompt_ids is not None:
            return self.checked(known_tokens(self._model, payload.prompt_ids), "prompt")
        text, param = self.render(payload), "messages" if payload.prompt is None else "prompt"
        if payload.suffix is not None:
            self._check_length(payload.suffix, "suffix")
            tokens = around_gap(self._model, text, payload.suffix, name=self._name)
            return self.checked(np.concatenate([self.missing_beginning(tokens), tokens]), param)
        tokens = self._model.tokenize(text)
        return self.checked(np.concatenate([self.missing_beginning(tokens), tokens]), param)

    def render(self, payload: Generate) -> str:
        """The prompt as text. Raises as `encode`."""
        if payload.prompt is not None:
            text, param = payload.prompt, "prompt"
        else:
            text, param = self._render(payload), "messages"
        self._check_length(text, param)
        return text

    def _check_length(self, text: str, param: str) -> None:
        least = len(text.encode("utf-8", "replace")) // max(self._model.max_piece, 1)
        if least > self._max_tokens:
            # Seen without tokenising, which takes time in proportion to the length.
            raise self._too_long(f"at least {least}", param)

    def missing_beginning(self, tokens: TokenArray | None) -> TokenArray:
        """The beginning-of-sequence token, when the model wants it and the prompt does not begin with it."""
        begins = tokens is not None and len(tokens) > 0 and tokens[0] == self._model.bos
        return np.array(
            [self._model.bos] if self._model.adds_bos and self._model.bos >= 0 and not begins else [], np.int32
        )

    def checked(self, tokens: TokenArray, param: str) -> TokenArray:
        """The tokens, if there are any and not too many. Raises as `encode`."""
        if not len(tokens):
            raise InvalidField("the prompt is empty", param=param)
        if len(tokens) >= self._max_tokens:
            raise self._too_long(str(len(tokens)), param)
        return tokens

    def num_system(self, payload: Generate, prompt: TokenArray) -> int:
        """How many tokens of a prompt come before the conversation: the leading system message and what is told of
        tools, as the template writes them alone, or before any first turn of a user."""
        if self._template is None or not payload.messages:
            return 0
        alone = self._beginning(payload, payload.messages, self._template)
        start = int(len(prompt) > 0 and prompt[0] == self._model.bos and (not len(alone) or alone[0] != prompt[0]))
        return start + num_common(prompt[start:], alone)

    def _beginning(self, payload: Generate, messages: Sequence[Message], template: ChatTemplate) -> TokenArray:
        variables = template_variables(payload, template)

        def rendered(*messages: Message) -> str:
            with contextlib.suppress(InvalidField):  # a template may want more than that
                part = replace(payload, messages=messages, add_generation_prompt=False)
                return template.render_chat(part, variables)
            return ""

        first = messages[:1] if messages[0].role == "system" else ()
        alone = rendered(*first)
        if alone and all(f'"{tool.name}"' in alone for tool in payload.callable_tools):
            return self._model.tokenize(alone)
        # Some write a system message of their own, or the tools, only into a conversation.
        one, other = (self._model.tokenize(rendered(*first, Message("user", text))) for text in ("0", "1"))
        return one[: num_common(one, other)] if len(one) else self._model.tokenize(alone)

    def _render(self, payload: Generate) -> str:
        if self._template is None:
            raise InvalidField(f"{self._name} has no usable chat template: send a prompt instead", param="messages")
        messages = payload.messages or ()
        if len(messages) > self._max_tokens:
            raise self._too_long(f"at least {len(messages)}", "messages")
        text = self._template.render_chat(payload, template_variables(payload, self._template))
        thought = self._template.kind.thought
        if payload.beginning and thought and text.rstrip().endswith(THOUGHTS[thought].opening):
            raise InvalidField(
                "this model begins every answer with a thought: the last message must not be one of the assistant",
                param="messages",
            )
        return text + payload.beginning

    def _too_long(self, num_tokens: str, param: str) -> ContextExceeded:
        return ContextExceeded(
            f"the prompt has {num_tokens} tokens, but the context holds {self._max_tokens}, the output included",
            param=param,
        )


def marks_of(model: Model) -> tuple[str, str]:
    """The texts of the tokens that begin and end a sequence, as chat templates write them."""
    begin, end = (model.piece(token, special=True).decode("utf-8", "replace") for token in (model.bos, model.eos))
    return begin, end


def issues_of(model: Model, template: ChatTemplate | None) -> tuple[Issue, ...]:
    """What is to be told of an engine that generates and has this template: it serves without one, but no chats."""
    if template is not None:
        return ()
    detail = f"{model.path.name} has no chat template, and the desired state gives none"
    if model.chat_template is not None:
        try:
            check_template(model.chat_template)
        except ModelError as error:
            detail = f"of the template in {model.path.name}: {error}; the desired state gives no other"
    return (issue_of("UnableToFindChatTemplate", detail, str(model.path), waits=True),)


def template_of(model: Model, today: Callable[[], datetime], override: str | None = None) -> ChatTemplate | None:
    """The model's own, unless there is an `override`; None when it has none that can be used. Raises `ModelError` for
    an override that cannot be."""
    bos, eos = marks_of(model)
    if override is not None:
        try:
            return ChatTemplate(override, bos=bos, eos=eos, today=today)
        except TemplateError as error:
            raise ModelError(str(error), kind="ChatTemplateDoesNotCompile") from error
    if model.chat_template is None:
        return None
    try:
        return ChatTemplate(model.chat_template, bos=bos, eos=eos, today=today)
    except TemplateError as error:
        log.warning(
            "the chat template in the model's file cannot be used: chat requests will be refused, raw prompts served",
            reason=str(error),
            remedy="choose a GGUF of this model with a template that compiles, or send prompts to /v1/completions",
        )
        return None
