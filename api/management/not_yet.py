"""Routes of Paddler 4 that Paddler does not have yet: 501 says so."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.management.operations import METADATA, TEMPLATE_OVERRIDE
from api.management.view import PoolWatch

_METADATA = "Agents do not tell what their models' files say of themselves yet."
_TEMPLATE = "Agents use the chat template of their model: another one cannot be given to them yet."


def not_yet_routes(watch: PoolWatch) -> list[HTTPRouteHandler]:
    @get("/api/v1/agent/{agent_id:str}/model_metadata", operation=METADATA)
    async def get_model_metadata(agent_id: FromPath[str]) -> Response[Any]:
        return await of_agent(agent_id, _METADATA)

    @get("/api/v1/agent/{agent_id:str}/chat_template_override", operation=TEMPLATE_OVERRIDE)
    async def get_chat_template_override(agent_id: FromPath[str]) -> Response[Any]:
        return await of_agent(agent_id, _TEMPLATE)

    async def of_agent(agent_id: str, words: str) -> Response[Any]:
        pool = await watch.pool()
        if all(lane.agent != agent_id for lane in pool.lanes):
            return _text(404, f"No agent has the id {agent_id[:100]}; GET /api/v1/agents lists those there are.")
        return _text(501, words)

    return [get_model_metadata, get_chat_template_override]


def _text(status: int, words: str) -> Response[Any]:
    return Response(words, status_code=status, media_type="text/plain")
