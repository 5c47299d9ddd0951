"""`POST /v1/completions`: what comes behind a raw prompt, or between it and a suffix."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec.structs import replace

from api.asking import ask
from api.body import AnyRequest, read_json_body
from api.exchange import StreamedAnswer, WholeAnswer
from api.exchange import Submit as SubmitCall
from api.gathered import GatheredAnswer
from api.interleaved import InterleavedAnswer
from api.openai.completions_call import CompletionCall, receive_completion_call
from api.openai.completions_choices import CompletionChoiceStream, candidates, render_completions
from api.openai.completions_render import CompletionStream, text_completion
from api.openai.label import CompletionLabel, QuestionLabel, encode_label, label_of
from api.openai.operations import COMPLETE
from api.openai.status import request_chunks
from api.options import read_options
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.jobs.gateway import Gateway, Reply, Submit
from paddler.wire.agent import Detokenize, Generate
from paddler.wire.answers import Detokenized
from paddler.wire.balancer import Finished, Tokens


def completion_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    @post("/v1/completions", status_code=200, operation=COMPLETE)
    async def create_completion(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        call = await receive_completion_call(body, secrets.randbits(32))
        how = await read_options(request, label=b"", cache_key=call.cache_key, is_background=call.is_background)
        if not call.is_single and how.idempotency_key:
            raise InvalidField("`Idempotency-Key` needs one prompt and `n` to be 1.", param="Idempotency-Key")
        if call.has_echo and call.is_background and call.prompts[0].prompt_ids is not None:
            # Its answer is a 202 at once, and only an agent could say what the tokens are.
            raise InvalidField("`echo` of tokens is not possible with `background`: send the text.", param="echo")
        pool = await gateway.resolve(call.model)
        created = int(clock.wall())
        echoes = [await echo_of(pool, prompt, how) if call.has_echo else "" for prompt in call.prompts]
        labels = [CompletionLabel(call.model, created, call.include_usage, call.has_logprobs, echo) for echo in echoes]
        if not call.is_single:
            return several(pool, call, labels, how)
        submit = partial(gateway.submit, pool, call.prompts[0], replace(how, label=encode_label(labels[0])))
        if call.stream:
            return StreamedAnswer(submit, stream_completion, gateway.position, clock)
        if not call.is_background:
            return WholeAnswer(submit, render_whole, clock)
        async with await submit() as reply:
            status = await gateway.status(reply.request_id)
        headers = {"location": f"/v1/requests/{reply.request_id}", "x-request-id": reply.request_id}
        return ASGIResponse(body=b"".join(request_chunks(status)), status_code=202, headers=headers)

    async def echo_of(pool: str, prompt: Generate, how: Submit) -> str:
        if prompt.prompt_ids is None:
            return prompt.prompt or ""
        # Only the model knows what its tokens say. In class `batch` it would be waited for without a bound.
        kind = "normal" if how.request_class == "batch" else how.request_class
        way = replace(how, label=encode_label(QuestionLabel()), request_class=kind, idempotency_key="", num_parts=0)
        return (await ask(partial(gateway.submit, pool, Detokenize(tokens=prompt.prompt_ids), way), Detokenized)).text

    def several(pool: str, call: CompletionCall, labels: Sequence[CompletionLabel], how: Submit) -> ASGIApp:
        submits: list[SubmitCall] = []
        payloads = candidates(call)
        for index, payload in enumerate(payloads):
            # The deadline is for the call, and its client knows one id of several.
            timeout_ms = how.start_timeout_ms if index == 0 else 0
            label = encode_label(labels[index // call.best_of])
            num_parts = 0 if index else len(payloads)
            way = replace(how, label=label, start_timeout_ms=timeout_ms, can_be_resumed=False, num_parts=num_parts)
            submits.append(partial(gateway.submit, pool, payload, way))
        if not call.stream:
            return GatheredAnswer(submits, partial(render_completions, call=call, labels=labels), clock)

        def render(reply: Reply) -> CompletionChoiceStream:
            return CompletionChoiceStream(reply.request_id, call, labels)

        return InterleavedAnswer(submits, render, gateway.position, clock)

    return [create_completion]


def stream_completion(reply: Reply) -> CompletionStream:
    """Chunks from where the reply is followed on."""
    return CompletionStream(reply.request_id, _label(reply), earlier=reply.earlier)


def render_whole(reply: Reply, said: Sequence[Tokens], end: Finished) -> bytes:
    return msgspec.json.encode(text_completion(reply.request_id, said, end, _label(reply)))


def _label(reply: Reply) -> CompletionLabel:
    label = label_of(reply)
    if not isinstance(label, CompletionLabel):
        raise InvalidField("This is no completion; GET /v1/requests/<id> has it when it is done.", param="id")
    return label
