"""`/v1/models`: OpenAI's object for OpenAI's clients, Anthropic's for those that send `anthropic-version`."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from api.anthropic.errors import is_for_anthropic
from api.anthropic.models import model_out, model_page, page_of
from api.body import AnyRequest
from api.openai.model_operations import GET_MODEL, LIST_MODELS
from api.openai.models import model_object
from api.openai.objects import ModelList
from paddler.errors import ModelNotFound
from paddler.jobs.gateway import Gateway

_encode = msgspec.json.Encoder().encode


def model_routes(gateway: Gateway) -> list[HTTPRouteHandler]:
    @get("/v1/models", operation=LIST_MODELS)
    async def list_models(request: AnyRequest) -> ASGIResponse:
        """Pools, their aliases, and the models that their agents serve."""
        entries = await gateway.models()
        is_theirs = is_for_anthropic(request.scope)
        page, has_more = page_of(request, entries, is_for_anthropic=is_theirs)
        if is_theirs:
            models = [model_out(entry, await gateway.view(entry.pool)) for entry in page]
            return _for_anthropic(model_page(models, has_more))
        shown = [model_object(entry, await gateway.view(entry.pool)) for entry in page]
        return _answer(ModelList(object="list", data=shown))

    @get("/v1/models/{model_path:path}", operation=GET_MODEL)
    async def get_model(request: AnyRequest, model_path: FromPath[str]) -> ASGIResponse:
        name = model_path.removeprefix("/")
        for entry in await gateway.models():
            if entry.id == name:
                view = await gateway.view(entry.pool)
                if is_for_anthropic(request.scope):
                    return _for_anthropic(model_out(entry, view))
                return _answer(model_object(entry, view))
        raise ModelNotFound(f"No model is called {name[:100]!r}; GET /v1/models lists those there are.", param="model")

    return [list_models, get_model]


def _answer(value: Any, **headers: str) -> ASGIResponse:
    return ASGIResponse(body=_encode(value), headers={"content-type": "application/json", **headers})


def _for_anthropic(value: Any) -> ASGIResponse:
    return _answer(value, **{"request-id": f"req_{secrets.token_hex(12)}"})
