"""The way of a request between the real gateway and real agent loops, with the scripted engine."""

from __future__ import annotations

import asyncio

import pytest
from fleet_harness import Fleet

from paddler.clock import SystemClock
from paddler.errors import BufferFull, ItemTimeout, ShuttingDown, StartTimeout
from paddler.jobs.gateway import Gateway, Reply, Submit
from paddler.store.results import Cancelled, Submission, Submitted
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Sampling
from paddler.wire.balancer import Answered, Finished, FinishReason, Opened, Tokens, Vectors
from workers.agent.running import Running
from workers.maintenance.upkeep import Upkeep

pytestmark = pytest.mark.anyio


def prompt(text: str, *, tokens: int = 20, stop: tuple[str, ...] = ()) -> Generate:
    return Generate(prompt=f"{text} [[tokens=1000000]]", max_tokens=tokens, stop=stop, sampling=Sampling(seed=7))


class Answer:
    def __init__(self) -> None:
        self.text = ""
        self.ids: list[int] = []
        self.attempts: list[int] = []
        self.end: Finished | None = None


async def read(reply: Reply, answer: Answer | None = None) -> Answer:
    answer = answer or Answer()
    async with reply:
        async for frame in reply:
            match frame:
                case Opened(attempt=attempt):
                    answer.attempts.append(attempt)
                case Tokens(ids=ids, text=text):
                    answer.ids += ids
                    answer.text += text
                case Finished():
                    answer.end = frame
                case Vectors() | Answered():
                    raise AssertionError("it was asked for text")
    return answer


async def ask(gateway: Gateway, text: str, *, tokens: int = 20) -> Answer:
    return await read(await gateway.submit("default", prompt(text, tokens=tokens)))


async def reference(fleet: Fleet, text: str, *, tokens: int = 20) -> Answer:
    """The uninterrupted run."""
    agent = await fleet.agent(slots=1)
    answer = await ask(await fleet.gateway(), text, tokens=tokens)
    await agent.leave()
    return answer


async def test_an_answer(fleet: Fleet) -> None:
    await fleet.agent()
    answer = await ask(await fleet.gateway(), "hello")
    assert answer.end is not None
    assert answer.end.reason is FinishReason.LENGTH
    assert answer.end.usage.completion_tokens == len(answer.ids) == 20
    assert answer.end.usage.prompt_tokens > 0
    assert answer.text
    assert answer.attempts == [1]
    assert await fleet.demand() == 0


async def test_eight_streams_on_four_slots(fleet: Fleet) -> None:
    await fleet.agent(slots=4, step_s=0.02)
    gateway = await fleet.gateway()
    replies = [await gateway.submit("default", prompt(f"story {n}", tokens=30)) for n in range(8)]
    assert await fleet.num_waiting() == 4
    assert await fleet.demand() == 8
    answers = await asyncio.gather(*map(read, replies))
    assert all(len(answer.ids) == 30 for answer in answers)
    assert len({answer.text for answer in answers}) == 8, "nobody gets another one's answer"
    assert (await fleet.num_waiting(), await fleet.demand()) == (0, 0)


async def test_scale_from_zero(fleet: Fleet) -> None:
    gateway = await fleet.gateway()
    pending = asyncio.create_task(ask(gateway, "patience"))
    await wait_until(fleet.num_waiting)
    assert not pending.done()
    await fleet.agent()
    assert len((await pending).ids) == 20


async def test_buffer_full_and_start_timeout(fleet: Fleet) -> None:
    gateway = await fleet.gateway(max_buffered_requests=1, buffered_request_timeout_ms=300)
    waiting = await gateway.submit("default", prompt("first"))
    with pytest.raises(BufferFull, match="--max-buffered-requests") as full:
        await gateway.submit("default", prompt("second"))
    assert full.value.retry_after_s
    with pytest.raises(StartTimeout):
        await read(waiting)
    assert (await fleet.num_waiting(), await fleet.demand()) == (0, 0)


async def test_the_background_has_a_buffer_of_its_own(fleet: Fleet) -> None:
    gateway = await fleet.gateway(max_buffered_requests=1, max_batch_requests=1)
    batch = await gateway.submit("default", prompt("all of it"), Submit(request_class="batch"))
    for how in (Submit(request_class="batch"), Submit(is_background=True)):
        with pytest.raises(BufferFull, match="--max-batch-requests"):
            await gateway.submit("default", prompt("more"), how)
    front = await gateway.submit("default", prompt("quickly"))
    await fleet.agent()
    assert len((await read(front)).ids) == len((await read(batch)).ids) == 20


async def test_a_timeout_of_zero_serves_free_slots_and_nothing_else(fleet: Fleet) -> None:
    gateway = await fleet.gateway(buffered_request_timeout_ms=0)
    with pytest.raises(StartTimeout):
        await ask(gateway, "nobody is here")
    await fleet.agent(slots=1)
    assert len((await ask(gateway, "now there is")).ids) == 20


async def test_cancel_while_waiting(fleet: Fleet) -> None:
    gateway = await fleet.gateway()
    async with await gateway.submit("default", prompt("never")):
        assert await fleet.num_waiting() == 1
    await wait_until(fleet.is_idle)
    assert await fleet.num_waiting() == 0


async def test_cancel_while_running_frees_the_slot(fleet: Fleet) -> None:
    agent = await fleet.agent(slots=1, step_s=0.05)
    gateway = await fleet.gateway()
    async with await gateway.submit("default", prompt("long", tokens=100_000)) as reply:
        async for frame in reply:
            if isinstance(frame, Tokens):
                break
    await wait_until(lambda: agent.loop.num_running == 0)
    assert len((await ask(gateway, "next", tokens=3)).ids) == 3


async def test_a_killed_agents_request_goes_on_where_it_was(fleet: Fleet) -> None:
    expected = await reference(fleet, "once upon a time", tokens=60)
    first = await fleet.agent(slots=2, step_s=0.0167)
    gateway = await fleet.gateway()
    answer = Answer()
    pending = asyncio.create_task(read(await gateway.submit("default", prompt("once upon a time", tokens=60)), answer))
    await wait_until(lambda: len(answer.ids) > 10)
    await fleet.agent(slots=2, lease_ms=500)
    await first.kill()
    await pending
    assert len(answer.attempts) == 2
    assert (answer.ids, answer.text) == (expected.ids, expected.text)
    assert answer.end == expected.end


async def test_a_leaving_agent_hands_over_at_once(fleet: Fleet) -> None:
    expected = await reference(fleet, "farewell", tokens=60)
    first = await fleet.agent(slots=2, step_s=0.0167, lease_ms=60_000)
    gateway = await fleet.gateway()
    answer = Answer()
    reply = await gateway.submit("default", prompt("farewell", tokens=60))
    pending = asyncio.create_task(read(reply, answer))
    await wait_until(lambda: len(answer.ids) > 10)
    await fleet.agent(slots=2)
    await first.leave()
    await pending
    assert (answer.ids, answer.text) == (expected.ids, expected.text)
    assert await fleet.pool.redis.hget(fleet.pool.keys.request(reply.request_id), "deaths") is None


async def test_a_leaving_agent_finishes_within_its_grace(fleet: Fleet) -> None:
    agent = await fleet.agent(slots=1, step_s=0.01)
    gateway = await fleet.gateway()
    answer = Answer()
    pending = asyncio.create_task(read(await gateway.submit("default", prompt("soon done", tokens=30)), answer))
    await wait_until(lambda: answer.ids, what="it is open: what is not goes back to the queue")
    await agent.leave(grace_s=10)
    await pending
    assert answer.attempts == [1]


async def test_lost_messages_are_read_from_the_journal(fleet: Fleet) -> None:
    """The balancer's subscription is cut again and again; the client sees one unbroken stream."""
    expected = await reference(fleet, "cut me off", tokens=60)
    await fleet.agent(slots=1, step_s=0.0167)
    gateway = await fleet.gateway()
    answer = Answer()
    pending = asyncio.create_task(read(await gateway.submit("default", prompt("cut me off", tokens=60)), answer))
    for seen in (5, 20, 40):
        await wait_until(lambda seen=seen: len(answer.ids) >= seen)
        await fleet.pool.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await pending
    assert (answer.ids, answer.text) == (expected.ids, expected.text)


async def test_an_item_that_takes_too_long(fleet: Fleet) -> None:
    await fleet.agent(slots=1, step_s=2)
    gateway = await fleet.gateway(inference_item_timeout_ms=300)
    with pytest.raises(ItemTimeout):
        await ask(gateway, "slow")
    await wait_until(fleet.is_idle)


async def test_the_requests_of_a_balancer_that_stops_go_on_at_another(fleet: Fleet) -> None:
    expected = await reference(fleet, "cut", tokens=100)
    await fleet.agent(slots=1, step_s=0.02)
    first, second = await fleet.gateway(cancel_on_stop=False), await fleet.gateway()
    answer = Answer()
    reply = await first.submit("default", prompt("cut", tokens=100))
    pending = asyncio.create_task(read(reply, answer))
    await wait_until(lambda: len(answer.ids) > 10)
    await first.close()
    with pytest.raises(ShuttingDown):
        await pending
    assert await fleet.pool.redis.zscore(fleet.pool.keys.balancers(), first.balancer_id) is None
    await read(await second.follow(reply.request_id, offset=reply.offset), answer)
    assert (answer.ids, answer.text) == (expected.ids, expected.text)
    assert answer.end == expected.end


async def test_who_does_not_come_back_leaves_an_orphan(fleet: Fleet) -> None:
    """Its time counts from the stop of the balancer, not from the end of the lease it would have had."""
    agent = await fleet.agent(slots=1, step_s=0.05)
    gateway = await fleet.gateway(cancel_on_stop=False)
    pending = asyncio.create_task(ask(gateway, "cut", tokens=100_000))
    await wait_until(lambda: agent.loop.num_running)
    work = Upkeep(fleet.store, SystemClock(), lease_ms=500, orphan_grace_ms=500)
    await work.run_once()
    await gateway.close()
    with pytest.raises(ShuttingDown):
        await pending

    async def is_cancelled() -> bool:
        await work.run_once()
        return await fleet.is_idle()

    await wait_until(is_cancelled, timeout_s=8, what="the worker cancels it")


async def test_where_there_is_no_other_balancer_nothing_runs_on(fleet: Fleet) -> None:
    """As under `paddler up`: what is in the foreground ends with its balancer, what is in the background stays."""
    agent = await fleet.agent(slots=2, step_s=0.05)
    gateway = await fleet.gateway(cancel_on_stop=True)
    pending = asyncio.create_task(ask(gateway, "cut", tokens=100_000))
    kept = await gateway.submit("default", prompt("kept", tokens=100_000), Submit(is_background=True))
    await wait_until(lambda: agent.loop.num_running == 2)
    await gateway.close()
    with pytest.raises(ShuttingDown):
        await pending

    async def only_one_is_left() -> bool:
        return await fleet.demand() == 1

    await wait_until(only_one_is_left)
    assert (await (await fleet.gateway()).status(kept.request_id)).state == "running"
    await fleet.pool.cancel(kept.request_id, b"")
    await wait_until(fleet.is_idle)


async def test_a_cancel_that_overtakes_its_submission_is_repeated(fleet: Fleet) -> None:
    """Found in review: a large submission goes over a connection of its own. Redis did not know it when the cancel of
    a client that had left came; then it arrived, and ran for nobody."""
    gateway = await fleet.gateway()
    pool = gateway._store.pool("default")
    really_submit, really_cancel = pool.submit, pool.cancel
    on_its_way: list[Submission] = []
    outcomes: list[Cancelled] = []

    async def submit_slowly(submission: Submission, *, now_ms: float = 0) -> Submitted:
        on_its_way.append(submission)
        await asyncio.Event().wait()
        raise AssertionError

    async def cancel(
        request_id: str,
        final_frame: bytes,
        *,
        leaving_inbox: str = "",
        may_come_back: bool = False,
        now_ms: float = 0,
    ) -> Cancelled:
        outcomes.append(
            await really_cancel(request_id, final_frame, leaving_inbox=leaving_inbox, may_come_back=may_come_back)
        )
        return outcomes[-1]

    pool.submit, pool.cancel = submit_slowly, cancel
    pending = asyncio.create_task(gateway.submit("default", prompt("x" * 100_000)))
    await wait_until(lambda: on_its_way)
    pending.cancel()
    await wait_until(lambda: outcomes)
    assert set(outcomes) == {Cancelled.GONE}
    await really_submit(on_its_way[0])
    assert await fleet.demand() == 1
    await wait_until(lambda: outcomes[-1] is Cancelled.CANCELLED, what="it is cancelled after all")
    assert await fleet.is_idle()


async def test_a_late_answer_about_an_earlier_turn_does_not_open_a_request_twice(fleet: Fleet) -> None:
    """Found by the chaos run: a release was sent again, while the same request ran here again; it was forgotten,
    opened a second time, and two jobs wrote one stream."""
    expected = await reference(fleet, "once", tokens=100)
    agent = await fleet.agent(slots=2, step_s=0.03)
    gateway = await fleet.gateway()
    answer = Answer()
    reply = await gateway.submit("default", prompt("once", tokens=100))
    pending = asyncio.create_task(read(reply, answer))
    await wait_until(lambda: answer.ids)
    agent.loop._on_settled(Running(reply.request_id, 0, b""), 0)
    assert agent.loop.num_running == 1
    await pending
    assert (answer.ids, answer.text) == (expected.ids, expected.text)
