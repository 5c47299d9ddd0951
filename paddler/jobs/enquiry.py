"""Asking one agent something that is in no snapshot: over its control channel, the answer through a list in Redis.

The list keeps an answer that is faster than whoever waits for it, so there is nothing to be registered before asking.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable

from paddler.store.client import Store
from paddler.store.scripts import PoolScripts
from paddler.store.turn_keys import question_key
from paddler.wire.agent import Ask, AskedOfAgent, Control, encode_control

ANSWER_S = 3.0
"""Paddler 4's patience with an agent, and for how long an answer is kept that nobody fetches."""


class UnknownAgent(Exception):
    """No agent has this id."""


class AgentAway(Exception):
    """The agent is in its pool, but hears nothing at the moment."""


class AgentSilent(Exception):
    """The agent has not answered in time; an older one does not know the question."""


async def ask_agent(
    store: Store, pool_name: str, agent_id: str, what: AskedOfAgent, *, patience_s: float = ANSWER_S
) -> bytes:
    """Its answer, in Paddler 4's JSON. Raises as `enquire`."""
    return await enquire(store, pool_name, agent_id, lambda question: Ask(question, what), patience_s=patience_s)


async def enquire(
    store: Store,
    pool_name: str,
    agent_id: str,
    question_of: Callable[[str], Control],
    *,
    patience_s: float = ANSWER_S,
) -> bytes:
    """What the agent says to a question, which is made of the id that its answer is to have. Raises `UnknownAgent`,
    `AgentAway`, `AgentSilent`, and what Redis raises."""
    pool = store.pool(pool_name)
    if await pool.redis.zscore(pool.keys.agents(), agent_id) is None:
        raise UnknownAgent
    question_id = secrets.token_urlsafe(16)
    message = encode_control(question_of(question_id))
    if not await pool.redis.publish(pool.keys.control(agent_id), message):
        raise AgentAway
    pipe = store.blocking(math.ceil(patience_s * 1000))
    try:
        found: tuple[bytes, bytes] | None = await pipe.call("BLPOP", question_key(pool.keys, question_id), patience_s)
    finally:
        await pipe.close()
    if found is None:
        raise AgentSilent
    return found[1]


async def answer(pool: PoolScripts, question_id: str, body: bytes) -> None:
    """The agent's side."""
    pipe = pool.redis.pipeline(transaction=True)
    key = question_key(pool.keys, question_id)
    pipe.rpush(key, body)
    pipe.pexpire(key, round(ANSWER_S * 1000))
    await pipe.execute()
