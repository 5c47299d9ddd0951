"""The routes of Paddler 4's management service that ask one agent: its answers pass as they are."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.management.agent_operations import METADATA, TEMPLATE_OVERRIDE
from paddler.errors import QueueUnavailable
from paddler.jobs.agent_orders import AgentOrders
from paddler.jobs.enquiry import ANSWER_S, AgentAway, AgentSilent, UnknownAgent, ask_agent
from paddler.store.client import TROUBLE, Store
from paddler.wire.agent import AskedOfAgent


def agent_routes(store: Store) -> list[HTTPRouteHandler]:
    orders = AgentOrders(store)

    @get("/api/v1/agent/{agent_id:str}/model_metadata", operation=METADATA)
    async def get_model_metadata(agent_id: FromPath[str]) -> Response[Any]:
        return await asked(agent_id, "model_metadata")

    @get("/api/v1/agent/{agent_id:str}/chat_template_override", operation=TEMPLATE_OVERRIDE)
    async def get_chat_template_override(agent_id: FromPath[str]) -> Response[Any]:
        return await asked(agent_id, "chat_template_override")

    async def asked(agent_id: str, what: AskedOfAgent) -> Response[Any]:
        try:
            pool = await orders.pool_of(agent_id)
            if pool is None:
                raise UnknownAgent
            body = await ask_agent(store, pool, agent_id, what)
        except UnknownAgent:
            return _text(404, f"No agent has the id {agent_id[:100]}; GET /api/v1/agents lists those there are.")
        except AgentAway:
            return _text(502, "The agent hears nothing at the moment: it may be restarting; ask again in some seconds.")
        except AgentSilent:
            return _text(504, f"The agent has not answered within {ANSWER_S:g} s: it may be busy, or too old.")
        except TROUBLE as error:
            raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error
        return Response(body, media_type="application/json")

    return [get_model_metadata, get_chat_template_override]


def _text(status: int, words: str) -> Response[Any]:
    return Response(words, status_code=status, media_type="text/plain")
