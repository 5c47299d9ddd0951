"""A leaving agent's requests go on from the states it has saved, and from what is computed again if they cannot be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from dict_keeper import DictKeeper, Entry
from fleet_harness import Fleet
from short_model import shorten

from paddler.clock import SystemClock
from paddler.engine_settings import EngineSettings
from paddler.jobs.gateway import Reply
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from paddler.wire.agent import Generate, Sampling
from paddler.wire.balancer import Finished, Tokens
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.saved_states import State
from workers.agent.tokens import TokenArray

pytestmark = pytest.mark.anyio

STORY = "one two three four five six seven eight nine ten " * 60
BANNED = tuple((token, -100.0) for token in (0, 2))
"""Both ends of the model's answers."""


class Heard:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.is_over = False


async def hear(reply: Reply, heard: Heard) -> None:
    async with reply:
        async for frame in reply:
            match frame:
                case Tokens(ids=ids):
                    heard.ids += ids
                case Finished():
                    heard.is_over = True
                case _:
                    pass


class Narrow(DictKeeper):
    """There is room on the way for one block, until that is written."""

    has_room = True

    def write(self, above: bytes, tokens: TokenArray, state: State, *, is_tail: bool, is_pinned: bool = False) -> bool:
        if not self.has_room:
            return False
        self.has_room = False
        return super().write(above, tokens, state, is_tail=is_tail, is_pinned=is_pinned)

    def flush(self, timeout_s: float) -> bool:
        self.has_room = True
        return super().flush(timeout_s)


@pytest.mark.parametrize("can_write", [True, False])
async def test_the_next_agent_goes_on_from_what_the_leaving_one_saved(
    fleet: Fleet, tmp_path: Path, can_write: bool
) -> None:
    model = Model(shorten(find_starter(), tmp_path / "short.gguf", (0, 1, 2, 29)))
    settings = EngineSettings(
        model_path=str(model.path), slots=2, context_size=2048, n_batch=64, threads=1, kv_ram=1 << 28
    )
    shelf: dict[bytes, Entry] = {}
    keepers = [Narrow(shelf), DictKeeper(shelf)]
    engines = [
        LlamaEngine(model, settings, SystemClock(), lambda _model, _settings, _size, keeper=keeper: keeper)
        for keeper in keepers
    ]
    if not can_write:
        keepers[0].write_gate.clear()
    first = await fleet.agent(engine=engines[0], lease_ms=60_000)
    gateway = await fleet.gateway()
    heard = Heard()
    payload = Generate(prompt=STORY, max_tokens=400, sampling=Sampling(temperature=0, logit_bias=BANNED))
    pending = asyncio.create_task(hear(await gateway.submit("default", payload), heard))
    await wait_until(lambda: len(heard.ids) > 10)
    await fleet.agent(engine=engines[1], lease_ms=60_000)
    await first.leave(kv_grace_s=10.0 if can_write else 0.1)
    num_had = len(heard.ids)
    await pending
    assert heard.is_over
    assert 10 < num_had < len(heard.ids) == 400, "it was handed over in the middle"
    num_restored = sum(num for _, num, _ in keepers[1].hits)
    # Of a prompt of 601 tokens and what was said up to the leave, the tail, too.
    assert 610 < num_restored < 1001 if can_write else num_restored == 0
