"""What an operator does with agents: drain, undrain, remove."""

from __future__ import annotations

from litestar import delete, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp

from api.body import AnyRequest
from api.management.asking import ask, json_answer
from api.management.fleet_objects import AgentOrder
from api.management.fleet_operations import DRAIN, REMOVE, UNDRAIN
from api.openai.query import read_choice, read_query
from paddler.errors import AgentNotFound, Conflict
from paddler.jobs.agent_orders import AgentOrders
from paddler.store.client import Store
from paddler.store.results import Order


def agent_order_routes(store: Store) -> list[HTTPRouteHandler]:
    orders = AgentOrders(store)

    @post("/api/v1/agent/{agent_id:str}/drain", status_code=200, operation=DRAIN)
    async def drain_agent(request: AnyRequest, agent_id: FromPath[str]) -> ASGIApp:
        """It takes no new request; what it has been given and has not begun goes back to its place, what runs ends. It
        stays registered, with its model loaded, also when it loses its connection, until it is undrained. A process
        that starts anew is another agent."""
        read_query(request, [])
        return await tell(agent_id, Order.DRAIN)

    @post("/api/v1/agent/{agent_id:str}/undrain", status_code=200, operation=UNDRAIN)
    async def undrain_agent(request: AnyRequest, agent_id: FromPath[str]) -> ASGIApp:
        read_query(request, [])
        return await tell(agent_id, Order.UNDRAIN)

    @delete("/api/v1/agent/{agent_id:str}", status_code=200, operation=REMOVE)
    async def remove_agent(request: AnyRequest, agent_id: FromPath[str]) -> ASGIApp:
        """It takes no new request, lets what runs end within its `--grace`, hands over the rest, and its process ends
        with code 0. Other agents go on where it stopped; no client notices."""
        is_forced = read_choice(read_query(request, ["force"]), "force", ["true", "false"]) == "true"
        return await tell(agent_id, Order.REMOVE, is_forced=is_forced)

    async def tell(agent_id: str, order: Order, *, is_forced: bool = False) -> ASGIApp:
        pool = await ask(orders.pool_of(agent_id))
        ordered = None if pool is None else await ask(orders.tell(pool, agent_id, order, is_forced=is_forced))
        if pool is None or ordered is None:
            raise AgentNotFound(f"No agent has the id {agent_id[:100]!r}; GET /api/v1/agents lists those there are.")
        if not ordered.is_obeyed:
            raise Conflict("This agent is leaving; it neither drains nor stays.")
        told = AgentOrder(id=agent_id, pool=pool, order=order.value, requests_running=ordered.num_running)
        return json_answer(told)

    return [drain_agent, undrain_agent, remove_agent]
