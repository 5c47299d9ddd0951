"""A balancer and an agent moved by hand, on the worker's Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from balancer_process import StartBalancer, balancer_processes
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer, http_balancer

from paddler.store.client import Store


@pytest.fixture
async def new_balancer(store: Store) -> AsyncIterator[NewBalancer]:
    async with AsyncExitStack() as stack:

        async def build(**settings: Any) -> HttpBalancer:
            return await stack.enter_async_context(http_balancer(store.url, store.prefix, **settings))

        yield build


@pytest.fixture
async def balancer(new_balancer: NewBalancer) -> HttpBalancer:
    return await new_balancer()


@pytest.fixture
async def new_agent(store: Store) -> AsyncIterator[NewAgent]:
    agents: list[HandAgent] = []

    async def build(*, slots: int = 1, model: str = "tiny", abilities: str = "", state: str = "ready") -> HandAgent:
        agent = HandAgent(store, slots=slots, abilities=abilities, state=state)
        agents.append(agent)
        await agent.register(model)
        return agent

    yield build
    for agent in agents:
        await agent.leave()


@pytest.fixture
async def agent(new_agent: NewAgent) -> HandAgent:
    return await new_agent()


@pytest.fixture
async def start() -> AsyncIterator[StartBalancer]:
    async with balancer_processes() as start:
        yield start
