"""What a batch may be for: for each route the one function that reads the bodies of its lines, with the code of the
route, and says how they are answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from api.openai.chat import receive_chat_call
from api.openai.choices import choice_payloads, render_choices
from api.openai.completions_call import receive_completion_call
from api.openai.completions_choices import candidates, render_completions
from api.openai.embeddings import read_embedding_call
from api.openai.label import ChatLabel, CompletionLabel, EmbeddingLabel, ResponseLabel, encode_label
from api.responses.answers import render_response
from api.responses.call import receive_response_call
from api.responses.item_schema import Item, ReferenceItem
from api.responses.objects import echo_of
from paddler.batches.lines import LineRequest
from paddler.errors import InvalidField
from paddler.jobs.heard import Answer


class BodyCall(Struct, frozen=True):
    """A checked body: what `LineCall` has, without the id of the line."""

    model: str
    requests: Sequence[LineRequest]
    render: Callable[[Sequence[Answer]], Iterable[bytes]]


ReadBody = Callable[[bytes, int, int], Awaitable[BodyCall]]
"""From the body, a seed for what names none, and the time (s) that the answer is said to be created at. Raises
`InvalidField`, or `ClientException` for bytes that are no JSON."""


async def read_chat_body(body: bytes, seed: int, created: int) -> BodyCall:
    call = await receive_chat_call(body, seed)
    _refuse("stream", call.stream)
    _refuse("background", call.is_background)
    label = ChatLabel(call.model, created, has_logprobs=call.payload.logprobs is not None)
    encoded = encode_label(label)
    requests = [LineRequest(payload, encoded) for payload in choice_payloads(call.payload, call.n)]
    return BodyCall(call.model, requests, partial(render_choices, label=label))


async def read_embedding_body(body: bytes, seed: int, created: int) -> BodyCall:  # noqa: ARG001  # the signature of all
    call = read_embedding_call(body)
    label = encode_label(EmbeddingLabel(call.model, call.is_base64))
    # One request: a batch has lines enough to fill all slots.
    requests = [LineRequest(ticket, label) for ticket in call.tickets(1, is_one=True)]
    return BodyCall(call.model, requests, call.gather)


async def read_completion_body(body: bytes, seed: int, created: int) -> BodyCall:
    call = await receive_completion_call(body, seed)
    _refuse("stream", call.stream)
    _refuse("background", call.is_background)
    # Only the model knows what tokens say, and a line is one thing to do.
    _refuse("echo", call.has_echo and any(prompt.prompt_ids is not None for prompt in call.prompts))
    labels = [
        CompletionLabel(
            call.model,
            created,
            has_logprobs=call.has_logprobs,
            echo=(prompt.prompt or "") if call.has_echo else "",
        )
        for prompt in call.prompts
    ]
    encoded = [encode_label(label) for label in labels]
    requests = [LineRequest(payload, encoded[index // call.best_of]) for index, payload in enumerate(candidates(call))]
    return BodyCall(call.model, requests, partial(render_completions, call=call, labels=labels))


async def read_response_body(body: bytes, seed: int, created: int) -> BodyCall:
    """Nothing is stored, and nothing that is stored is looked up: a batch may run for a day."""
    call = await receive_response_call(body, seed)
    asked = call.request
    _refuse("stream", bool(asked.stream))
    _refuse("background", call.is_background)
    _refuse("store", asked.store is True)
    _refuse("previous_response_id", asked.previous_response_id is not None)
    items: list[Item] = []
    for index, item in enumerate(call.items):
        if isinstance(item, ReferenceItem):
            _refuse(f"input[{index}]", True)
        else:
            items.append(item)
    call = replace(call, request=replace(asked, store=False))
    label = ResponseLabel(asked.model, created, echo_of(call), has_logprobs=call.payload.logprobs is not None)
    return BodyCall(asked.model, [LineRequest(call.generate(items), encode_label(label))], _render_response)


def _render_response(answers: Sequence[Answer]) -> Iterable[bytes]:
    (answer,) = answers
    return [render_response(answer.reply, answer.tokens, answer.end)]


ENDPOINTS: dict[str, ReadBody] = {
    "/v1/chat/completions": read_chat_body,
    "/v1/completions": read_completion_body,
    "/v1/embeddings": read_embedding_body,
    "/v1/responses": read_response_body,
}
"""What a batch may be for. A route is added with the one line that reads its bodies."""


def _refuse(name: str, is_asked: bool) -> None:
    if is_asked:
        raise InvalidField(f"`{name}` does not go with a batch; leave it out.", param=name)
