"""What is pinned stays: in the KV cache as long as others can go, and in host memory after that."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from paddler.engine import Job, Pinned, Retained
from paddler.testing.engine_run import EngineRun
from paddler.wire.agent import Generate, Sampling
from workers.agent.llama_engine import LlamaEngine
from workers.agent.scheduler import MIN_PREFILL_TOKENS

MakeLlama = Callable[..., LlamaEngine]
SOME = tuple(random.Random(5).choices(range(1000, 9000), k=300))
PLENTY = 1 << 30


def pin(request_id: str, tokens: tuple[int, ...] = SOME, scope: str = "") -> Job:
    payload = Generate(prompt_ids=tokens, max_tokens=1, cache_scope=scope, sampling=Sampling(temperature=0))
    return Job(request_id=request_id, payload=payload, is_pinned=True)


def another(request_id: str, num_tokens: int) -> Job:
    tokens = tuple(random.Random(request_id).choices(range(1000, 9000), k=num_tokens))
    return replace(pin(request_id, tokens), is_pinned=False)


def beginning(request_id: str, scope: str = "") -> Job:
    return replace(pin(request_id, (*SOME, 7000, 7001), scope), is_pinned=False)


def the_pin(engine: LlamaEngine) -> Pinned:
    found = engine.pinned or ()
    assert len(found) == 1
    return found[0]


def cached(run: EngineRun, job: Job) -> int:
    [outcome] = run.finish(job)
    return outcome.done.usage.cached_tokens


def test_it_goes_after_all_others(make_llama: MakeLlama) -> None:
    engine = make_llama(context_size=1024, max_parked=2, slots=1)
    run = EngineRun(engine)
    run.finish(pin("pin"))
    assert the_pin(engine).num_resident == len(SOME)
    assert the_pin(engine).num_bytes > 100 * len(SOME)
    for number in range(4):
        run.finish(another(f"n{number}", 600))
    assert cached(run, beginning("hit")) == len(SOME)
    assert the_pin(engine).num_resident == len(SOME)


def test_a_conversation_that_begins_with_it_does_not_take_its_place(make_llama: MakeLlama) -> None:
    engine = make_llama(context_size=1024, slots=1)
    run = EngineRun(engine)
    run.finish(pin("pin"))
    run.finish(beginning("long"))
    assert the_pin(engine).num_resident == len(SOME)
    assert engine._kv.num_parked == 2


def test_running_requests_take_its_place_and_host_memory_has_it(make_llama: MakeLlama) -> None:
    engine = make_llama(context_size=1024, slots=1, kv_ram=PLENTY)
    run = EngineRun(engine)
    run.finish(pin("pin"))
    run.finish(another("large", 1000))
    assert (the_pin(engine).num_resident, the_pin(engine).num_saved) == (0, len(SOME))
    assert cached(run, beginning("hit")) >= len(SOME) - 1


def test_host_memory_forgets_others_first(make_llama: MakeLlama) -> None:
    engine = make_llama(context_size=1024, slots=1, kv_ram=PLENTY)
    run = EngineRun(engine)
    run.finish(pin("pin"))
    run.finish(another("large", 1000))
    room = the_pin(engine).num_bytes
    assert engine._kv.behind is not None
    states = engine._kv.behind.states
    states.max_bytes = 4 * room
    for number in range(6):
        run.finish(another(f"n{number}", 900))
    assert the_pin(engine).num_saved == len(SOME)
    assert states.num_bytes <= 4 * room
    assert engine.saved is not None
    assert engine.saved.num_tokens > len(SOME), "and others are there, too"


def test_unpinned_it_is_gone(make_llama: MakeLlama) -> None:
    engine = make_llama(context_size=1024, slots=1)
    run = EngineRun(engine)
    run.finish(pin("pin"))
    before = engine._kv.num_cells
    assert engine.unpin("pin") == [Retained("pin", 0, len(SOME))]
    assert engine._kv.num_cells == before - len(SOME)
    assert engine.pinned == ()
    assert engine.unpin("pin") == []
    assert cached(run, beginning("miss")) == 0


def test_it_is_no_other_tenants(make_llama: MakeLlama) -> None:
    run = EngineRun(make_llama(context_size=1024, slots=1))
    run.finish(pin("pin", scope="acme"))
    assert cached(run, beginning("b", "bolt")) == 0
    assert cached(run, beginning("a", "acme")) == len(SOME)


def test_what_gave_way_goes_on_where_it_was(make_llama: MakeLlama) -> None:
    engine = make_llama(context_size=1024, n_batch=64, slots=1)
    run = EngineRun(engine)
    run.start(pin("first"))
    while not engine._sequences or next(iter(engine._sequences.values())).work.num_cached < 64:
        run.step()
    engine.cancel("first")
    run.step()
    assert 64 <= the_pin(engine).num_resident < len(SOME)
    [outcome] = run.finish(pin("second"))
    assert outcome.done.usage.cached_tokens >= 64
    engine.unpin("first")
    assert the_pin(engine).num_resident == len(SOME)


@pytest.mark.parametrize("num_pinned", [3])
def test_more_than_may_be_parked(make_llama: MakeLlama, num_pinned: int) -> None:
    """Then the one that was used longest ago goes, and nothing else happens."""
    engine = make_llama(context_size=2048, max_parked=2, slots=1)
    run = EngineRun(engine)
    for number in range(num_pinned):
        run.finish(pin(f"p{number}", tuple(range(1000 + 200 * number, 1100 + 200 * number))))
    assert [one.num_resident for one in engine.pinned or ()] == [0, 100, 100]


def test_who_waits_for_it_makes_it_as_urgent_as_himself(make_llama: MakeLlama) -> None:
    """While somebody generates it is given a few tokens a step, and as much as any prompt when a request needs it."""
    engine = make_llama(context_size=2048, n_batch=128, slots=3)
    run = EngineRun(engine)
    stream = another("stream", 10)
    assert isinstance(stream.payload, Generate)
    endless = replace(stream.payload, max_tokens=500, sampling=Sampling(temperature=0, ignore_eos=True))
    run.start(replace(stream, payload=endless))
    while not run.outcomes["stream"].ids:
        run.step()
    run.start(pin("pin"))

    def num_computed() -> int:
        works = [one.work for one in engine._sequences.values() if one.job.is_pinned]
        return works[0].num_cached if works else len(SOME)

    for _ in range(3):
        before = num_computed() if len(engine._sequences) > 1 else 0
        run.step()
        assert 0 < num_computed() - before <= MIN_PREFILL_TOKENS
    [outcome] = [run.start(beginning("waits"))]
    before = num_computed()
    run.step()
    assert num_computed() - before > MIN_PREFILL_TOKENS
    while outcome.end is None:
        run.step()
    assert outcome.done.usage.cached_tokens >= len(SOME) - MIN_PREFILL_TOKENS
