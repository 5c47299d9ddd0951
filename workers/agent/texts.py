"""What a model's vocabulary and chat template say of texts: their tokens, the prompt of a request and how long it is.

Nothing here changes the model, so any thread may ask.
"""

from __future__ import annotations

from typing import assert_never

from paddler.errors import InvalidField
from paddler.images import images_of, refuse_images
from paddler.payload import MAX_QUESTION_BYTES, check_payload, check_size
from paddler.wire.agent import ApplyTemplate, CountTokens, Detokenize, Generate, Question, Tokenize
from paddler.wire.answers import Answer, Counted, Detokenized, Templated, Tokenized
from workers.agent.llama import Model
from workers.agent.prompt import PromptEncoder
from workers.agent.templates import ChatTemplate
from workers.agent.vision import with_markers

MAX_MESSAGES = 10_000
IMAGE = "<__media__>"
"""What stands for an image in a prompt that is shown, as in that of llama.cpp's server."""


class Texts:
    """Of one model. `can_see`: its agent takes images."""

    def __init__(self, model: Model, template: ChatTemplate | None, *, name: str, can_see: bool) -> None:
        self._model = model
        # A prompt that is counted may be longer than any that is computed: counting is how a client finds out.
        self._encoder = PromptEncoder(model, template, name=name, max_tokens=MAX_QUESTION_BYTES + 1)
        self._can_see = can_see

    def use(self, template: ChatTemplate | None) -> None:
        self._encoder.use(template)

    def answer(self, question: Question) -> Answer:
        """Raises `PaddlerError`."""
        check_payload(question)
        match question:
            case Tokenize():
                return self._tokenize(question)
            case Detokenize(tokens=tokens):
                return Detokenized(b"".join(self._pieces(tokens)).decode("utf-8", "replace"))
            case ApplyTemplate(request=request):
                return Templated(self._prompt(request))
            case CountTokens(request=request, with_tokens=with_tokens):
                found = self._tokens(request)
                return Tokenized(tuple(found)) if with_tokens else Counted(len(found))
            case _:
                assert_never(question)

    def _tokens(self, request: Generate) -> list[int]:
        if request.messages is None:
            return self._encoder.encode(request).tolist()
        tokens = self._model.tokenize(self._prompt(request))
        return [*self._encoder.missing_beginning(tokens).tolist(), *tokens.tolist()]

    def _tokenize(self, question: Tokenize) -> Tokenized:
        text = question.text
        found = self._model.tokenize(text, adds_special=question.adds_special, has_control=question.has_control)
        tokens = tuple(found.tolist())
        return Tokenized(tokens, tuple(self._pieces(tokens)) if question.with_pieces else None)

    def _pieces(self, tokens: tuple[int, ...]) -> list[bytes]:
        """Bytes of each, of control tokens too. Raises `InvalidField` for what is no token."""
        known = self._model.pieces
        for index, token in enumerate(tokens):
            if not 0 <= token < len(known):
                raise InvalidField(
                    f"tokens[{index}] is {token}, but this model's go from 0 to {len(known) - 1}",
                    param=f"tokens[{index}]",
                )
        return [known[token] or self._model.piece(token, special=True) for token in tokens]

    def _prompt(self, request: Generate) -> str:
        if len(request.messages or ()) > MAX_MESSAGES:
            raise InvalidField(f"messages: more than {MAX_MESSAGES} of them", param="messages")
        if not self._can_see:
            refuse_images(request, "its agent has no projection for them")
        text = self._encoder.render(with_markers(request, IMAGE) if any(images_of(request)) else request)
        check_size(text, "prompt" if request.messages is None else "messages")
        return text
