"""When requests are sent, against a real balancer with scripted agents and against a server that answers when told."""

from __future__ import annotations

import asyncio
import re
from xml.etree import ElementTree

import pytest
from bench_calls import measure, plan, shape, summary_of, texts_of
from fake_upstream import Asked, FakeUpstream, always, telling
from fleet_harness import Fleet
from http_harness import HttpBalancer

from paddler.bench.arrivals import Arrival
from paddler.bench.client import CHAT, Target
from paddler.bench.page import write_page
from paddler.bench.plan import Replay
from paddler.bench.report import Report, compare
from paddler.bench.run import Load
from paddler.bench.trace import Entry
from paddler.bench.workload import Span

pytestmark = pytest.mark.anyio


async def test_an_open_loop_sends_at_its_times_though_nothing_is_answered(server: FakeUpstream) -> None:
    """The server answers nobody before all ten are there: a closed loop of fewer would wait for ever."""
    waiting: list[asyncio.Event] = []

    async def late(asked: Asked) -> None:
        waiting.append(asyncio.Event())
        if len(waiting) == 10:
            for event in waiting:
                event.set()
        await waiting[-1].wait() if len(waiting) < 10 else None
        await telling("hello")(asked)

    server.routes[CHAT] = late
    asked = plan(server.url, load=Load(max_requests=10), rate=50.0, arrival=Arrival.CONSTANT)
    bench = await measure(asked)
    samples = bench.series[0].rounds[0]
    assert [sample.scheduled_s for sample in samples] == pytest.approx([number / 50 for number in range(10)])
    assert all(sample.is_ok and sample.sent_s >= sample.scheduled_s for sample in samples)
    assert bench.measured[0].rounds[0].max_in_flight == 10
    first, last = samples[0].ttft_s, samples[-1].ttft_s
    assert first is not None
    assert last is not None
    assert first > 9 / 50, "the first has waited for the last, and that counts"


async def test_a_closed_loop_has_so_many_under_way_and_no_more(server: FakeUpstream) -> None:
    asked = plan(server.url, load=Load(concurrency=3, max_requests=12))
    found = await summary_of(asked)
    assert (found.num_ok, found.max_in_flight) == (12, 3)


async def test_a_conversation_thinks_between_its_turns(server: FakeUpstream) -> None:
    load = Load(concurrency=1, max_requests=3, think_s=0.1)
    bench = await measure(plan(server.url, load=load, shape=shape(turns=Span(3, 3))))
    one, two, three = bench.series[0].rounds[0]
    for before, after in ((one, two), (two, three)):
        assert before.end_s is not None
        assert after.scheduled_s - before.end_s == pytest.approx(0.1, abs=0.05)
        assert after.sent_s >= after.scheduled_s


async def test_the_duration_ends_what_begins_and_waits_for_what_has_begun(server: FakeUpstream) -> None:
    found = await summary_of(plan(server.url, load=Load(duration_s=0.3), rate=40.0, arrival=Arrival.CONSTANT))
    assert (found.num_requests, found.num_ok, found.is_stopped) == (12, 12, False)


async def test_a_trace_is_replayed_at_its_times(server: FakeUpstream) -> None:
    entries = [Entry(0, 6, 3, (1, 2)), Entry(100, 5, 4, (1, 3)), Entry(400, 4, 5, (9,))]
    asked = plan(server.url, load=Load(), replay=Replay(entries, block_size=4, speed=4.0))
    bench = await measure(asked)
    samples = bench.series[0].rounds[0]
    assert [sample.scheduled_s for sample in samples] == pytest.approx([0.0, 0.025, 0.1])
    bodies = [one.body for one in server.generated()]
    assert [body["max_tokens"] for body in bodies] == [3, 4, 5]
    one, two, three = ([text.split() for text in texts] for texts in texts_of(bodies))
    assert one[0][:4] == two[0][:4]
    assert [len(words) for (words,) in (one, two, three)] == [6, 5, 4]


async def test_targets_are_asked_the_same_in_turn_and_every_round_something_else() -> None:
    order: list[str] = []
    asked: dict[str, list[str]] = {"a": [], "b": []}

    def noting(name: str) -> FakeUpstream:
        server = FakeUpstream()

        async def answer(one: Asked) -> None:
            order.append(name)
            asked[name].append(one.body["messages"][0]["content"])
            await telling("hello")(one)

        server.routes[CHAT] = answer
        return server

    with noting("a") as one, noting("b") as two:
        targets = [Target("a", one.url, "m"), Target("b", two.url, "m")]
        bench = await measure(plan(targets=targets, load=Load(concurrency=1, max_requests=2), rounds=2))
    assert order == ["a", "a", "b", "b"] * 2
    assert asked["a"] == asked["b"]
    assert len(set(asked["a"])) == 4
    assert [len(target.rounds) for target in bench.measured] == [2, 2]


async def test_no_round_is_that_of_another_seed(server: FakeUpstream) -> None:
    """Else it would find its prompts in the caches of the target."""
    for seed in (0, 1, 2):
        await measure(plan(server.url, load=Load(concurrency=1, max_requests=1), rounds=3, seed=seed))
    assert len({texts[0] for texts in texts_of([asked.body for asked in server.generated()])}) == 9


async def test_an_open_loop_sends_no_more_than_it_may_though_turns_come_between(server: FakeUpstream) -> None:
    """The second conversation waits for its time while the second turn of the first is sent."""
    load = Load(max_requests=2)
    found = await summary_of(
        plan(server.url, load=load, rate=20.0, arrival=Arrival.CONSTANT, shape=shape(turns=Span(2, 2)))
    )
    assert (found.num_requests, found.num_ok) == (2, 2)


async def test_the_same_seed_sends_the_same_bytes(server: FakeUpstream) -> None:
    for seed in (3, 3, 4):
        await measure(plan(server.url, load=Load(max_requests=5), rate=200.0, seed=seed, shape=shape(system_tokens=9)))
    bodies = [asked.body for asked in server.generated()]
    assert bodies[:5] == bodies[5:10] != bodies[10:]


async def test_conversations_on_a_fleet_find_their_beginnings_cached(balancer: HttpBalancer, fleet: Fleet) -> None:
    await fleet.agent(slots=4)
    asked = plan(
        balancer.url(),
        load=Load(concurrency=4, max_requests=24),
        shape=shape(turns=Span(3, 3), system_tokens=200, output_tokens=Span(5, 5)),
        tokens_per_word=None,
    )
    bench = await measure(asked)
    assert bench.tokens_per_word == pytest.approx(1.0, abs=0.01), "the scripted engine's tokens are words"
    (found,) = bench.measured[0].rounds
    assert (found.num_ok, found.errors, found.num_told_cache) == (24, {}, 24)
    assert found.output_tokens == 24 * 5
    assert found.hit_rate is not None
    assert found.hit_rate > 0.6
    assert await fleet.is_idle()


async def test_what_the_balancer_refuses_is_counted_with_its_words(balancer: HttpBalancer, fleet: Fleet) -> None:
    await fleet.agent()
    asked = plan(targets=[Target("fleet", balancer.url(), "of-nobody")])
    found = await summary_of(asked)
    assert found.errors == {"status 404": 4}
    assert "of-nobody" in found.error_examples["status 404"]


async def test_the_page_needs_nothing_from_elsewhere_and_is_well_formed(server: FakeUpstream) -> None:
    hostile = "<script>alert(1)</script>"
    with FakeUpstream() as other:
        other.routes[CHAT] = always({"error": {"message": hostile}}, 500)
        targets = [Target("mine", server.url, "m"), Target(hostile, other.url, hostile)]
        bench = await measure(plan(targets=targets, rounds=2))
    report = Report(
        paddler="1",
        begun_at="2026-01-01T00:00:00+00:00",
        host="here",
        seed=7,
        options={"extra-body": hostile},
        tokens_per_word=1.0,
        is_tokens_measured=False,
        targets=bench.measured,
        comparison=compare(bench.measured),
    )
    page = write_page(report, bench.series)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) >= 4
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).attrib["aria-label"]
