"""Routes of Paddler 4 that hang on a desired state, which Paddler does not have yet: 501 says so."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.management.operations import APPLICABLE_STATE, DESIRED_STATE, METADATA, TEMPLATE_OVERRIDE
from api.management.view import PoolWatch

_STATE = (
    "Agents serve what they were started with (`paddler agent --model`): a desired state that a balancer hands out is "
    "not there yet."
)
_METADATA = "Agents do not tell what their models' files say of themselves yet."
_TEMPLATE = "Agents use the chat template of their model: another one cannot be given to them yet."


def not_yet_routes(watch: PoolWatch) -> list[HTTPRouteHandler]:
    @route("/api/v1/balancer_desired_state", http_method=["GET", "PUT"], operation=DESIRED_STATE)
    async def balancer_desired_state() -> Response[Any]:
        return _text(501, _STATE)

    @get("/api/v1/balancer_applicable_state", operation=APPLICABLE_STATE)
    async def get_balancer_applicable_state() -> Response[Any]:
        return _text(501, _STATE)

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

    return [balancer_desired_state, get_balancer_applicable_state, get_model_metadata, get_chat_template_override]


def _text(status: int, words: str) -> Response[Any]:
    return Response(words, status_code=status, media_type="text/plain")
