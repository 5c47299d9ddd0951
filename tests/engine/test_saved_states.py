"""Host memory behind the KV cache: what left the cache comes back instead of being computed, and says the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from paddler.engine import Done, Job, Retained, Saved
from paddler.testing.engine_run import EngineRun, Outcome, make_job
from paddler.wire.agent import Generate
from workers.agent.context import Context, Decoded
from workers.agent.llama import LogitArray, Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.residency import Residency
from workers.agent.saved_states import BLOCK, SavedStates, State
from workers.agent.tiers.names import next_name, root_name
from workers.agent.tokens import TokenArray

MakeLlama = Callable[..., LlamaEngine]
PLENTY = 1 << 30
A_BLOCK = 4 * 2 * 192 * 2 * BLOCK
"""About as many bytes as a block of the model with four layers has."""
WORDS = ("red", "fox", "tree", "river", "stone", "cloud", "bird", "house", "road", "light", "song", "rain", "door")


def story(seed: int, num_words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


def of_tenant(scope: str, job: Job) -> Job:
    return replace(job, payload=replace(job.payload, cache_scope=scope))


class Counted:
    """An engine, and how many tokens it computes."""

    def __init__(self, engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.engine, self.num_computed = EngineRun(engine), engine, 0
        decode = engine._context.decode

        def counted() -> Decoded:
            self.num_computed += engine._context.batch.size
            return decode()

        monkeypatch.setattr(engine._context, "decode", counted)

    def finish(self, job: Job) -> tuple[int, Outcome]:
        before = self.num_computed
        [outcome] = self.run.finish(job)
        return self.num_computed - before, outcome


def check_books(engine: LlamaEngine) -> None:
    tree, context = engine._kv._tree, engine._context
    for key in range(engine.info.slots_total + engine.info.max_parked + 1):
        assert context.extent(key) == ((0, tree.length(key) - 1) if tree.length(key) else (-1, -1))
    assert engine._kv.num_cells <= engine._scheduler.num_cells


def states_of(engine: LlamaEngine) -> SavedStates:
    assert engine._kv.behind is not None
    return engine._kv.behind.states


def saved_of(engine: LlamaEngine) -> Saved:
    assert engine.saved is not None
    return engine.saved


@pytest.fixture
def endless(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never ends by itself."""
    monkeypatch.setattr(model, "end_tokens", frozenset[int]())


@pytest.mark.usefixtures("endless")
def test_what_was_evicted_comes_back(make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(make_llama(kv_ram=PLENTY, context_size=1024), monkeypatch)
    first, begun = counted.finish(make_job("a", story(1, 600), max_tokens=8))
    counted.finish(make_job("b", story(2, 700), max_tokens=8))
    check_books(counted.engine)
    again, outcome = counted.finish(make_job("c", story(1, 600), max_tokens=8))
    assert first > 600
    assert again == 8, "the last token of the prompt, and seven of the answer"
    assert outcome.ids[0] == begun.ids[0]
    assert outcome.done.usage.cached_tokens == begun.done.usage.prompt_tokens - 1
    check_books(counted.engine)


@pytest.mark.usefixtures("endless")
def test_random_conversations_say_what_they_would_without(make_llama: MakeLlama) -> None:
    """Each turn is also given to an engine that never had any of it. Cells lie in another order, in which attention
    adds: of four layers that moves a logarithm by up to 0.2, also where nothing is restored."""
    engine = make_llama(kv_ram=PLENTY, context_size=640, n_batch=48, slots=2)
    saving = EngineRun(engine)
    plain = EngineRun(make_llama(context_size=640, n_batch=48, max_parked=0, slots=1))
    chosen, texts = random.Random(7), [story(seed, 120) for seed in range(4)]
    for turn in range(16):
        at = chosen.randrange(len(texts))
        if len(texts[at]) > 1400:
            texts[at] = story(100 + turn, 120)
        [here] = saving.finish(make_job(f"s{turn}", texts[at], max_tokens=2, logprobs=0))
        [there] = plain.finish(make_job(f"p{turn}", texts[at], max_tokens=2, logprobs=0))
        assert here.ids[0] == there.ids[0]
        assert here.logprobs[0].logprob == pytest.approx(there.logprobs[0].logprob, abs=0.5)
        texts[at] += here.text + " " + story(1000 + turn, 30)
        check_books(engine)
    assert saved_of(engine).num_restored > 200


def test_a_restored_state_has_the_same_bits(model: Model) -> None:
    """In blocks, into another context of the model, and not all of the last one."""
    tokens = np.array(model.tokenize(story(1, 400)), np.int32)[: BLOCK + 141]
    one, other = (Context(model, num_sequences=3, context_size=1024, max_batch=48, num_threads=1) for _ in range(2))

    def compute(context: Context, start: int, end: int) -> LogitArray:
        for at in range(start, end, 40):
            context.batch.clear()
            context.batch.add(tokens[at : min(at + 40, end)], at, 0, wants_logits=True)
            assert context.decode() is Decoded.OK
        return context.logits()[0].copy()

    compute(one, 0, BLOCK + 140)
    states = [one.save(0, *block, 2) for block in ((0, BLOCK), (BLOCK, BLOCK + 140))]
    expected = compute(one, BLOCK + 140, BLOCK + 141)
    assert states[0] is not None
    assert states[1] is not None
    assert other.restore(0, states[0], 0, BLOCK, 2)
    assert other.restore(0, states[1], BLOCK, BLOCK + 120, 2)
    assert other.extent(0) == (0, BLOCK + 119)
    assert other.extent(2) == (-1, -1)
    compute(other, BLOCK + 120, BLOCK + 140)
    assert (compute(other, BLOCK + 140, BLOCK + 141) == expected).all()
    one.close()
    other.close()


@pytest.mark.usefixtures("endless")
def test_no_other_scope_gets_it(make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(make_llama(kv_ram=PLENTY, context_size=1024), monkeypatch)
    counted.finish(of_tenant("acme", make_job("a", story(1, 600), max_tokens=2)))
    counted.finish(make_job("b", story(2, 700), max_tokens=2))
    num_computed, outcome = counted.finish(of_tenant("other", make_job("c", story(1, 600), max_tokens=2)))
    assert num_computed > 600
    assert outcome.done.usage.cached_tokens == 0


@pytest.mark.usefixtures("endless")
def test_what_is_told_of_a_request(make_llama: MakeLlama) -> None:
    """Routers go on taking it for held while it is saved, and hear when it is not any more."""
    engine = make_llama(kv_ram=int(6.2 * A_BLOCK))
    run, residency, saved = EngineRun(engine), Residency("default"), states_of(engine)

    def finish(name: str, seed: int) -> None:
        job = make_job(name, story(seed, 700), max_tokens=2)
        assert isinstance(job.payload, Generate)
        residency.began(name, job.payload)
        run.start(job)
        while run.engine.num_free_slots < run.engine.info.slots_total:
            for event in run.engine.step():
                if isinstance(event, Retained):
                    residency.retained(event.request_id, event.num_tokens, event.num_total)
                elif isinstance(event, Done):
                    residency.ended(name, "")

    finish("a", 1)
    finish("b", 2)
    finish("c", 3)
    assert "a" in residency._held, "evicted, but saved"
    assert residency._num_tokens["a"] > 690
    assert 0 < saved.num_bytes <= saved.max_bytes
    for seed in range(4, 8):
        finish(str(seed), seed)
    assert "a" not in residency._held
    assert saved.num_bytes <= saved.max_bytes


@pytest.mark.usefixtures("endless")
def test_with_little_memory_who_comes_back_is_served(make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes room for the conversation that returns is saved in its place: its own states are in use by then."""
    counted = Counted(make_llama(kv_ram=3 * A_BLOCK, context_size=1024), monkeypatch)
    states = states_of(counted.engine)
    for turn in range(6):
        num_computed, outcome = counted.finish(make_job(str(turn), story(turn % 2, 600), max_tokens=2))
        assert outcome.ids
        assert num_computed <= 603
        assert states.num_bytes <= states.max_bytes
        check_books(counted.engine)
    assert saved_of(counted.engine).num_restored > 100


@pytest.mark.usefixtures("endless")
def test_who_finds_more_than_was_planned_with(make_llama: MakeLlama) -> None:
    """The older of two, admitted in the same step, takes back what the younger begins with, too: more than the cells
    that the plan of the younger was made with."""
    engine = make_llama(kv_ram=PLENTY, context_size=1024)
    run, header = EngineRun(engine), "You are a helpful fox, and you answer all that you are asked. "
    run.finish(make_job("a", header + story(1, 400), max_tokens=2))
    for n in range(3):
        run.finish(make_job(f"b{n}", story(20 + n, 700), max_tokens=2))
    older = run.start(make_job("c", header + story(1, 400) + " and", max_tokens=2))
    younger = run.start(make_job("d", header + "Now what?", max_tokens=4))
    run.step_until(lambda: older.end is not None and younger.end is not None)
    assert len(younger.ids) == 4
    check_books(engine)


@pytest.mark.usefixtures("endless")
def test_a_state_that_is_refused_is_computed(make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(make_llama(kv_ram=PLENTY, context_size=1024), monkeypatch)
    _, begun = counted.finish(make_job("a", story(1, 600), max_tokens=2))
    counted.finish(make_job("b", story(2, 700), max_tokens=2))
    [(_, first), *_] = states_of(counted.engine)._blocks.values()
    while first.parent is not None and first.parent.parent is not None:
        first = first.parent
    assert first.state is not None
    first.state = first.state[:-64]
    num_computed, outcome = counted.finish(make_job("c", story(1, 600), max_tokens=2))
    assert num_computed > 500
    assert outcome.ids[0] == begun.ids[0]
    check_books(counted.engine)


class Names:
    """Of a fleet whose fingerprint takes a while."""

    is_known = False

    def root(self, scope: str) -> bytes:
        return root_name(b"secret", "f", scope) if self.is_known else b""

    def next(self, above: bytes, tokens: TokenArray) -> bytes:
        return next_name(b"secret", above, tokens)


class TestBooks:
    """The bookkeeping alone: states are as many bytes as they have tokens."""

    @staticmethod
    def read(start: int, end: int) -> State | None:
        return np.zeros(end - start, np.uint8)

    def test_a_common_beginning_is_kept_once(self) -> None:
        saved = SavedStates(10_000)
        common = np.arange(2 * BLOCK, dtype=np.int32)
        one, other = (np.concatenate([common, np.full(100, n, np.int32)]) for n in (7, 8))
        saved.put("", one, 0, "one", 612, self.read)
        saved.put("", other, 0, "other", 612, self.read)
        assert saved.num_bytes == saved.num_tokens == 2 * BLOCK + 200
        assert [part.end for part in saved.reach("", other, 0)] == [BLOCK, 2 * BLOCK, 612]
        assert [part.end for part in saved.reach("", one[:300], 10)] == [BLOCK, 300]
        assert saved.reach("elsewhere", one, 0) == []

    def test_an_end_grows_into_a_block(self) -> None:
        saved, tokens = SavedStates(10_000), np.arange(400, dtype=np.int32)
        saved.put("", tokens[:100], 0, "a", 100, self.read)
        told = saved.put("", tokens, 0, "b", 400, self.read)
        assert saved.num_bytes == 400
        assert {one.request_id: one.num_tokens for one in told} == {"a": 0, "b": 400}

    def test_whose_end_grows_without_a_request_is_told_of_no_more(self) -> None:
        saved, tokens = SavedStates(10_000), np.arange(400, dtype=np.int32)
        saved.put("", tokens[:100], 0, "a", 100, self.read)
        told = saved.add("", tokens, 0, self.read)
        assert {one.request_id: one.num_tokens for one in told} == {"a": 0}
        assert saved.add("", tokens, 0, self.read) == []

    def test_an_end_stays_when_only_what_comes_behind_its_block_is_saved(self) -> None:
        saved, tokens = SavedStates(10_000), np.arange(600, dtype=np.int32)
        saved.put("", tokens[:100], 0, "a", 100, self.read)
        told = saved.put("", tokens, BLOCK, "b", 600, self.read)
        assert {one.request_id: one.num_tokens for one in told} == {"b": 600}
        assert [part.end for part in saved.reach("", tokens, 0)] == [100]
        assert [part.end for part in saved.reach("", tokens, BLOCK)] == [2 * BLOCK, 600]
        saved.put("", tokens, 0, "c", 600, self.read)
        assert [part.end for part in saved.reach("", tokens, 0)] == [BLOCK, 2 * BLOCK, 600]

    def test_what_is_not_there_ends_it(self) -> None:
        saved, tokens = SavedStates(10_000), np.arange(600, dtype=np.int32)
        saved.put("", tokens, BLOCK, "a", 600, self.read)
        assert saved.reach("", tokens, 0) == []
        assert [part.end for part in saved.reach("", tokens, BLOCK)] == [2 * BLOCK, 600]

    def test_what_is_of_use_again_and_again_outlives_what_came_later(self) -> None:
        saved = SavedStates(6 * BLOCK)
        often, once = (np.full(2 * BLOCK, n, np.int32) for n in (1, 2))
        saved.put("", often, 0, "often", len(often), self.read)
        for _ in range(4):
            saved.used(saved.reach("", often, 0)[-1].block)
        saved.put("", once, 0, "once", len(once), self.read)
        for n in range(3, 6):
            tokens = np.full(2 * BLOCK, n, np.int32)
            saved.put("", tokens, 0, str(n), len(tokens), self.read)
        assert saved.reach("", once, 0) == []
        assert len(saved.reach("", often, 0)) == 2
        for n in range(6, 30):
            tokens = np.full(2 * BLOCK, n, np.int32)
            saved.put("", tokens, 0, str(n), len(tokens), self.read)
        assert saved.reach("", often, 0) == [], "nobody has used it for long"

    def test_what_is_pinned_goes_last(self) -> None:
        saved = SavedStates(4 * BLOCK)
        pinned = np.full(2 * BLOCK, 1, np.int32)
        saved.put("*", pinned, 0, "pin", len(pinned), self.read)
        saved.pin([("*", pinned)])
        for n in range(2, 30):
            tokens = np.full(2 * BLOCK, n, np.int32)
            saved.put("", tokens, 0, str(n), len(tokens), self.read)
            assert len(saved.reach("*", pinned, 0)) == 2
        saved.pin([])
        for n in range(30, 60):
            tokens = np.full(2 * BLOCK, n, np.int32)
            saved.put("", tokens, 0, str(n), len(tokens), self.read)
        assert saved.reach("*", pinned, 0) == []

    def test_a_block_is_found_by_its_name_as_long_as_it_is_here(self) -> None:
        names = Names()
        saved, tokens = SavedStates(3 * BLOCK, names), np.arange(600, dtype=np.int32)
        saved.put("", tokens, 0, "a", 600, self.read)
        first = next_name(b"secret", root_name(b"secret", "f", ""), tokens[:BLOCK])
        second = next_name(b"secret", first, tokens[BLOCK : 2 * BLOCK])
        assert saved.state_of(first) is None, "the names are not known yet"
        names.is_known = True
        saved.add("", tokens, 0, self.read)
        saved.add("other", tokens[:BLOCK], 0, self.read)
        found = saved.state_of(second)
        assert found is not None
        assert (found.above, found.tokens.tolist()) == (first, tokens[BLOCK : 2 * BLOCK].tolist())
        saved.add("", np.full(3 * BLOCK, 9, np.int32), 0, self.read)
        assert saved.state_of(first) is None

    @pytest.mark.parametrize("seed", range(5))
    def test_bounds_and_owners_hold(self, seed: int) -> None:
        chosen, saved, held = random.Random(seed), SavedStates(3_000), dict[str, int]()
        conversations = [np.array(chosen.choices(range(3), k=900), np.int32) for _ in range(4)]
        for _ in range(200):
            tokens = chosen.choice(conversations)[: chosen.randrange(20, 900)]
            if chosen.random() < 0.3:
                if parts := saved.reach("", tokens, 0):
                    saved.used(parts[-1].block)
                continue
            name = str(chosen.randrange(40))
            for one in saved.put("", tokens, chosen.choice((0, 0, 200)), name, len(tokens), self.read):
                held[one.request_id] = one.num_tokens
            blocks = [block for _, block in saved._blocks.values()]
            assert saved.num_bytes == sum(block.num_bytes for block in blocks) <= 3_000
            assert saved.num_tokens == sum(len(block.tokens) for block in blocks if block.state is not None)
            assert saved.num_blocks == sum(block.state is not None for block in blocks)
            owners = {owner: block.end for block in blocks for owner in block.owners}
            assert owners == {name: num for name, num in held.items() if num}
