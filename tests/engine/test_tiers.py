"""What is behind host memory: states that outlive the engine that computed them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from dict_keeper import SECRET, DictKeeper, Entry, PublicIsSlow
from msgspec.structs import replace

from paddler.clock import SystemClock
from paddler.engine import Job
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, Outcome, make_job
from paddler.wire.agent import Sampling
from paddler.wire.balancer import FinishReason
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.saved_states import BLOCK
from workers.agent.scheduler import Scheduler
from workers.agent.tiers.contract import PUBLIC_SCOPE
from workers.agent.tiers.names import place_of, tail_name

NUM_CONVERSATIONS = 200 if os.environ.get("PADDLER_TEST_SIZE") == "full" else 10
PLENTY = 1 << 30
A_BLOCK = 4 * 2 * 192 * 2 * BLOCK
LONG = "one two three four five six seven eight nine ten " * 60
"""600 tokens: two blocks and a tail."""


class Agent:
    """An engine, its keeper, and how many tokens it has computed."""

    def __init__(self, engine: LlamaEngine, keeper: DictKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.keeper, self.run, self.num_computed = engine, keeper, EngineRun(engine), 0
        decode = engine._context.decode

        def counted() -> object:
            self.num_computed += engine._context.batch.size
            return decode()

        monkeypatch.setattr(engine._context, "decode", counted)

    def finish(self, job: Job) -> tuple[int, Outcome]:
        before = self.num_computed
        [outcome] = self.run.finish(job)
        self.keeper.flush(10.0)
        return self.num_computed - before, outcome

    def forget_all(self) -> None:
        """All but what is in the tier."""
        assert self.engine._kv.behind is not None
        self.engine._kv.evict_all()
        states = self.engine._kv.behind.states
        bound, states.max_bytes = states.max_bytes, 0
        states._shrink()
        states.max_bytes = bound


Start = Callable[..., Agent]


@pytest.fixture
def start(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Agents of one fleet: they share a tier and nothing else."""
    monkeypatch.setattr(model, "end_tokens", frozenset[int]())
    shelf: dict[bytes, Entry] = {}
    made: list[LlamaEngine] = []

    def make(
        *,
        kv_ram: int = PLENTY,
        context_size: int = 2048,
        slots: int = 4,
        n_batch: int = 256,
        fingerprint: str = "one",
        pending: int = 1 << 30,
        max_tokens: int | None = None,
        keeper_class: type[DictKeeper] = DictKeeper,
    ) -> Agent:
        settings = EngineSettings(
            model_path=str(model.path),
            slots=slots,
            context_size=context_size,
            n_batch=n_batch,
            threads=1,
            kv_ram=kv_ram,
            context_shift=max_tokens is not None,
        )
        keeper = keeper_class(shelf, fingerprint=fingerprint, max_pending=pending)
        made.append(LlamaEngine(model, settings, SystemClock(), lambda _model, _settings, _size: keeper))
        made[-1]._max_tokens = max_tokens or made[-1]._max_tokens
        return Agent(made[-1], keeper, monkeypatch)

    yield make
    for engine in made:
        engine.close()


def of(scope: str, job: Job) -> Job:
    return replace(job, payload=replace(job.payload, cache_scope=scope))


@pytest.mark.usefixtures("patient")
def test_another_agent_restores_what_one_has_computed(start: Start) -> None:
    one, other = start(), start()
    first, begun = one.finish(make_job("a", LONG, max_tokens=1))
    assert first > 600
    again, outcome = other.finish(make_job("b", LONG, max_tokens=8))
    assert again == 8, "the last token of the prompt, and seven of the answer: the tail came, too"
    assert outcome.ids[0] == begun.ids[0]
    assert outcome.done.usage.cached_tokens == begun.done.usage.prompt_tokens - 1
    assert sum(num for _, num, _ in other.keeper.hits) == begun.done.usage.prompt_tokens - 1
    assert all(saved_s > 0 for _, _, saved_s in other.keeper.hits)


def test_one_tier_tells_of_what_came_from_where(start: Start) -> None:
    one, other = start(), start(context_size=1024)
    one.finish(make_job("a", LONG, max_tokens=1))
    other.finish(make_job("b", LONG, max_tokens=2))
    ram, disk = other.engine.tiers
    assert (ram.tier, ram.num_tokens, disk.tier) == ("ram", 0, "disk")
    assert disk.num_tokens >= 600
    assert ram.num_bytes > 2 * A_BLOCK
    assert ram.num_blocks == 3
    assert ram.bytes_per_s > 0
    other.finish(make_job("c", "Something else altogether. " * 150, max_tokens=2))
    other.finish(make_job("d", LONG, max_tokens=2))
    assert other.engine.tiers[0].num_tokens > 200, "from host memory, behind what had stayed in the context"
    assert len(other.keeper.calls) == 4, "own and public scope, of the two that were not at hand"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing is believed to be so slow that one waits half a minute for a tier."""
    monkeypatch.setattr(Scheduler, "prefill_token_s", property(lambda _scheduler: 0.05))
    monkeypatch.setattr("workers.agent.reading_ahead.MAX_S", 30.0)


@pytest.mark.usefixtures("patient")
def test_who_begins_alike_restores_as_much_of_the_end_too(start: Start) -> None:
    """Not only whole blocks: what several ask of one long text differs behind it."""
    one, other = start(), start()
    one.finish(make_job("a", LONG + "What does it say?", max_tokens=8))
    num_computed, outcome = other.finish(make_job("b", LONG + "Who wrote it, and when?", max_tokens=1))
    assert num_computed < 20
    assert outcome.done.usage.cached_tokens >= 598


@pytest.mark.usefixtures("patient")
def test_a_prompt_that_fills_the_context_is_restored_too(start: Start) -> None:
    one, other = start(), start(context_size=1024, slots=1)
    filling = LONG + "one two three four five six seven eight nine ten " * 39
    one.finish(make_job("a", filling, max_tokens=1))
    num_computed, outcome = other.finish(make_job("b", filling, max_tokens=4))
    assert num_computed == 4
    assert outcome.done.usage.cached_tokens >= 990


@pytest.mark.usefixtures("patient")
def test_who_has_all_waits_for_no_public_prefix(start: Start) -> None:
    one, other = start(), start(keeper_class=PublicIsSlow)
    one.finish(make_job("a", LONG, max_tokens=1))
    other.keeper.write_gate.clear()
    held = other.run.start(make_job("b", LONG, max_tokens=2))
    other.run.step_until(lambda: held.end is not None)
    assert held.done.usage.cached_tokens >= 600


@pytest.mark.usefixtures("patient")
def test_what_is_on_its_way_holds_up_nobody_else(start: Start) -> None:
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    other.keeper.gate.clear()
    held, quick = other.run.start(make_job("b", LONG, max_tokens=4)), other.run.start(make_job("c", "Hi", max_tokens=6))
    other.run.step_until(lambda: quick.end is not None)
    assert not held.ids
    other.keeper.gate.set()
    other.run.step_until(lambda: held.end is not None)
    assert held.done.usage.cached_tokens >= 600


@pytest.mark.usefixtures("patient")
def test_who_begins_alike_waits_for_the_same_reading(start: Start) -> None:
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    other.keeper.gate.clear()
    outcomes = [other.run.start(make_job(str(n), f"{LONG} and {n}", max_tokens=3)) for n in range(3)]
    other.run.step()
    other.keeper.gate.set()
    other.run.step_until(lambda: all(outcome.end for outcome in outcomes))
    assert [outcome.done.usage.cached_tokens >= 600 for outcome in outcomes] == [True] * 3
    assert other.num_computed < 3 * 16
    assert len({call.start for call in other.keeper.calls}) <= 2


def test_nobody_waits_longer_than_computing_takes(start: Start) -> None:
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    other.keeper.gate.clear()
    num_computed, outcome = other.finish(make_job("b", LONG, max_tokens=2))
    assert num_computed > 600
    assert outcome.done.usage.cached_tokens == 0
    assert all(0 < call.deadline_s <= 1.0 for call in other.keeper.calls)


@pytest.mark.usefixtures("patient")
def test_one_that_waits_can_be_cancelled(start: Start) -> None:
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    other.keeper.gate.clear()
    held = other.run.start(make_job("b", LONG, max_tokens=2))
    other.run.step()
    other.engine.cancel("b")
    other.run.step()
    assert held.done.reason is FinishReason.CANCELLED
    assert len(other.keeper.forgotten) == 2
    assert other.engine.num_free_slots == 4
    other.keeper.gate.set()
    again, _ = other.finish(make_job("b", LONG, max_tokens=2))
    assert again < 10


def test_nothing_is_read_that_is_not_worth_it(start: Start) -> None:
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    other.keeper.is_good = False
    num_computed, _ = other.finish(make_job("b", LONG, max_tokens=2))
    assert num_computed > 600
    assert other.keeper.calls == []


def test_another_fingerprint_is_a_miss(start: Start) -> None:
    start().finish(make_job("a", LONG, max_tokens=2))
    other = start(fingerprint="two")
    num_computed, _ = other.finish(make_job("b", LONG, max_tokens=2))
    assert num_computed > 600


def test_no_tenant_gets_what_anothers_is(start: Start) -> None:
    one, other = start(), start()
    one.finish(of("acme", make_job("a", LONG, max_tokens=2)))
    num_computed, outcome = other.finish(of("evil", make_job("b", LONG, max_tokens=2)))
    assert num_computed > 600
    assert outcome.done.usage.cached_tokens == 0


def test_what_does_not_fit_into_host_memory_comes_nevertheless(start: Start) -> None:
    one, other = start(), start(kv_ram=A_BLOCK + A_BLOCK // 4)
    one.finish(make_job("a", LONG, max_tokens=1))
    num_computed, outcome = other.finish(make_job("b", LONG, max_tokens=2))
    assert num_computed < 10
    assert outcome.done.usage.cached_tokens >= 600
    assert other.engine._kv.behind is not None
    assert other.engine._kv.behind.states.num_bytes <= A_BLOCK + A_BLOCK // 4


@pytest.mark.usefixtures("patient")
def test_what_is_read_takes_no_more_than_host_memory_may(start: Start) -> None:
    one, other = start(), start(kv_ram=4 * A_BLOCK)
    texts = ["".join(f"{word} {n} " for word in LONG.split()[:200]) for n in range(2)]
    for text in texts:
        one.finish(make_job(text[:5], text, max_tokens=1))
    other.finish(make_job("c", "Something else altogether. " * 90, max_tokens=1))
    other.keeper.calls.clear()
    other.keeper.gate.clear()
    held = [other.run.start(make_job(str(n), text, max_tokens=2)) for n, text in enumerate(texts)]
    for _ in range(3):
        other.run.step()
    assert len(other.keeper.calls) == 2, "one prompt, in both scopes"
    other.keeper.gate.set()
    other.run.step_until(lambda: all(each.end is not None for each in held))
    assert [each.done.usage.cached_tokens > 500 for each in held] == [True, True]


def test_peers_are_handed_on(start: Start) -> None:
    agent = start()
    agent.finish(replace(make_job("a", LONG, max_tokens=2), peers=("http://10.0.0.1:4000",)))
    assert {call.peers for call in agent.keeper.calls} == {("http://10.0.0.1:4000",)}


def test_a_block_a_step_is_written_while_it_runs(start: Start) -> None:
    """Whoever is killed has written what it had, but for the last blocks."""
    agent = start()
    running = agent.run.start(make_job("a", LONG, max_tokens=30))
    agent.run.step_until(lambda: len(running.ids) == 5)
    assert agent.keeper.num_written == 2
    agent.run.step_until(lambda: running.end is not None)
    assert agent.keeper.num_written == 3, "and the tail, when it was parked"


def test_what_is_kept_is_not_written_again(start: Start) -> None:
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    other.finish(make_job("b", LONG, max_tokens=2))
    assert other.keeper.num_written <= 1, "at most a tail with another end"


def test_what_the_keeper_drops_is_offered_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.agent.keeping.RETRY_S", 0.0)
    agent = start(pending=0)
    running = agent.run.start(make_job("a", LONG, max_tokens=200))
    agent.run.step_until(lambda: len(running.ids) == 5)
    assert agent.keeper.num_written == 0
    saves = agent.engine._context.save
    monkeypatch.setattr(agent.engine._context, "save", None)
    agent.keeper.max_pending = 100
    agent.run.step_until(lambda: agent.keeper.num_written >= 1)
    monkeypatch.setattr(agent.engine._context, "save", saves)
    agent.run.step_until(lambda: running.end is not None)
    assert agent.keeper.num_written >= 3


def test_a_leaving_agent_hands_over_with_state(start: Start) -> None:
    one, other = start(), start()
    running = one.run.start(make_job("a", LONG, max_tokens=40))
    one.run.step_until(lambda: len(running.ids) == 12)
    one.engine.save_running()
    assert one.engine.flush_states(10.0)
    resumed = make_job("a", LONG, max_tokens=40, resume=running, resume_at=12)
    num_computed, outcome = other.finish(resumed)
    assert num_computed == 1 + 27, "the last token that was sampled, and those behind it"
    one.run.step_until(lambda: running.end is not None)
    assert len(outcome.ids) == 28
    assert outcome.done.usage.cached_tokens == outcome.done.usage.prompt_tokens


def test_each_that_is_handed_over_has_its_own_end(start: Start) -> None:
    """They have asked the same, so their ends lie behind the same block."""
    one, other = start(), start()
    samplings = {name: Sampling(temperature=2.0, seed=seed) for seed, name in enumerate("abc")}
    running = {n: one.run.start(make_job(n, LONG, max_tokens=60, sampling=some)) for n, some in samplings.items()}
    one.run.step_until(lambda: min(len(each.ids) for each in running.values()) >= 40)
    assert one.engine.save_running() == 0
    assert one.engine.flush_states(10.0)
    for name, each in running.items():
        num = len(each.ids)
        job = make_job(name, LONG, max_tokens=num + 1, sampling=samplings[name], resume=each, resume_at=num)
        assert other.finish(job)[0] <= 2


def test_what_is_computed_behind_a_shift_is_not_named_by_what_has_gone(start: Start) -> None:
    agent = start(max_tokens=400)
    prompt = "one two three four five six seven eight nine ten " * 30
    older = agent.run.start(make_job("a", prompt, max_tokens=390))
    agent.run.step_until(lambda: len(older.ids) > 0)
    agent.run.start(make_job("b", prompt, max_tokens=390))
    sequence = next(iter(agent.engine._sequences.values()))
    agent.run.step_until(lambda: sequence.num_gone > 0)
    assert agent.engine._kv._tree.length(sequence.work.key) < 10, "computed anew: the other has it, too"
    agent.run.step_until(lambda: sequence.work.num_cached > BLOCK + 40)
    agent.engine.save_running()
    agent.keeper.flush(10.0)
    tokens = sequence.tokens[: sequence.work.num_cached]
    first = agent.keeper.next(agent.keeper.root(""), tokens[:BLOCK])
    own = tail_name(SECRET, agent.keeper.next(first, place_of("a")))
    ends = [name for name, entry in agent.keeper.shelf.items() if (entry.tokens[:20] == tokens[BLOCK:][:20]).all()]
    assert (ends, first in agent.keeper.shelf) == ([own], True)


def test_what_was_preempted_is_restored_elsewhere(start: Start) -> None:
    one, other = start(context_size=1024, slots=2), start()
    older = one.run.start(make_job("a", "A story. " * 130, max_tokens=300))
    younger = one.run.start(make_job("b", LONG, max_tokens=300))
    one.run.step_until(lambda: younger.num_preempted == 1 or older.end is not None)
    assert younger.num_preempted == 1
    one.keeper.flush(10.0)
    num = len(younger.ids)
    num_computed, _ = other.finish(make_job("b", LONG, max_tokens=num + 1, resume=younger, resume_at=num))
    assert num_computed <= 2


def target_of_nothing(_works: object) -> float:
    return 1e-9


@pytest.mark.usefixtures("patient")
def test_a_long_prefix_is_restored_step_by_step(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block a step, as the time of a step allows no more, and others have their token in each."""
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    monkeypatch.setattr(other.engine._scheduler, "target_s", target_of_nothing)
    quick = other.run.start(make_job("b", "Hi", max_tokens=200))
    other.run.step_until(lambda: len(quick.ids) == 2)
    slow = other.run.start(make_job("c", LONG, max_tokens=3))
    other.run.step_until(lambda: other.keeper.hits != [])
    lengths = [len(quick.ids)]
    [sequence] = (one for one in other.engine._sequences.values() if one.job.request_id == "c")
    assert sequence.work.is_restoring
    assert sequence.work.num_cached == BLOCK
    while not slow.ids:
        other.run.step()
        lengths.append(len(quick.ids))
    assert len(lengths) >= 3
    assert all(after == before + 1 for before, after in pairwise(lengths))
    other.engine.cancel("b")
    other.run.step_until(lambda: slow.end is not None)
    assert slow.done.usage.cached_tokens >= 600


@pytest.mark.usefixtures("patient")
def test_one_that_is_being_restored_can_be_cancelled(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = start(), start()
    one.finish(make_job("a", LONG, max_tokens=1))
    monkeypatch.setattr(other.engine._scheduler, "target_s", target_of_nothing)
    slow = other.run.start(make_job("c", LONG, max_tokens=3))
    other.run.step_until(lambda: other.keeper.hits != [])
    other.engine.cancel("c")
    other.run.step()
    assert slow.done.reason is FinishReason.CANCELLED
    again, _ = other.finish(make_job("c", LONG, max_tokens=3))
    assert again < 10


@pytest.mark.usefixtures("patient")
def test_random_conversations_go_on_as_if_computed(start: Start, model: Model) -> None:
    """Each turn on an agent that has it from the tier alone, and on one that computes everything; in batches below a
    tile (`scheduler.TILE`), because in tiles the same prompt has other bits when it is cut otherwise."""
    chance = random.Random(5)
    words = LONG.split()[:10]
    settings = EngineSettings(
        model_path=str(model.path), slots=1, context_size=2048, n_batch=48, threads=1, max_parked=0
    )
    plain = EngineRun(LlamaEngine(model, settings, SystemClock()))
    agent, num_restored = start(n_batch=48, slots=1), 0
    for number in range(NUM_CONVERSATIONS):
        text = " ".join(chance.choices(words, k=chance.randrange(280, 600)))
        for turn in range(2):
            [there] = plain.finish(make_job(f"p{number}.{turn}", text, max_tokens=8))
            for is_known in (False, True):
                num_computed, here = agent.finish(make_job(f"a{number}.{turn}", text, max_tokens=8))
                assert here.ids == there.ids
                agent.forget_all()
                if is_known:
                    assert num_computed < 8 + BLOCK
                    num_restored += here.done.usage.cached_tokens
            text += there.text + " ".join(chance.choices(words, k=20))
    assert num_restored > NUM_CONVERSATIONS * 2 * BLOCK
    plain.engine.close()


def pin(job: Job) -> Job:
    return replace(of(PUBLIC_SCOPE, job), is_pinned=True)


class TestPublic:
    """A prefix that was pinned for everybody."""

    def test_all_tenants_begin_with_it(self, start: Start) -> None:
        agent = start()
        agent.finish(pin(make_job("pin", LONG, max_tokens=1)))
        for tenant in ("", "acme", "umbrella"):
            num_computed, outcome = agent.finish(
                of(tenant, make_job(f"t{tenant}", f"{LONG}I am {tenant}", max_tokens=2))
            )
            assert num_computed < 20
            assert outcome.done.usage.cached_tokens >= 599

    def test_what_they_add_is_theirs(self, start: Start) -> None:
        agent = start()
        agent.finish(pin(make_job("pin", LONG, max_tokens=1)))
        secret = LONG + "The password is swordfish, tell nobody. " * 12
        agent.finish(of("acme", make_job("a", secret, max_tokens=2)))
        num_other, other = agent.finish(of("evil", make_job("b", secret, max_tokens=2)))
        assert num_other > 90
        assert 599 <= other.done.usage.cached_tokens <= 601
        num_own, _ = agent.finish(of("acme", make_job("c", secret, max_tokens=2)))
        assert num_own < 5

    def test_it_comes_back_from_host_memory(self, start: Start) -> None:
        agent = start(context_size=1024)
        agent.finish(pin(make_job("pin", LONG, max_tokens=1)))
        agent.finish(of("acme", make_job("a", "Something else altogether. " * 180, max_tokens=2)))
        num_computed, _ = agent.finish(of("umbrella", make_job("b", LONG + "Hello", max_tokens=2)))
        assert num_computed < 20

    def test_it_comes_from_the_tiers_and_what_follows_it_too(self, start: Start) -> None:
        one, other = start(), start()
        one.finish(pin(make_job("pin", LONG, max_tokens=1)))
        longer = LONG + "And then the wolf said to the fox what nobody had ever said. " * 40
        one.finish(of("acme", make_job("a", longer, max_tokens=1)))
        num_computed, outcome = other.finish(of("acme", make_job("b", longer, max_tokens=2)))
        assert num_computed < 10
        assert outcome.done.usage.cached_tokens > 1000
        assert {entry.is_pinned for entry in one.keeper.shelf.values()} == {True, False}

    def test_nobody_waits_for_a_public_prefix_twice(self, start: Start) -> None:
        agent = start()
        first = agent.run.start(pin(make_job("pin", LONG, max_tokens=1)))
        tenant = agent.run.start(of("acme", make_job("a", LONG + "Hi", max_tokens=2)))
        agent.run.step_until(lambda: first.end is not None and tenant.end is not None)
        assert agent.num_computed < 640
