"""Counting values by upper bounds, and one request as its meters hear of it."""

from __future__ import annotations

import pytest

from paddler.errors import BufferFull
from paddler.jobs.gateway import Submit
from paddler.jobs.mailbox import Mailbox
from paddler.jobs.measuring import Measured, Measuring, Meter, measured_of
from paddler.jobs.reply import Reply
from paddler.jobs.standing import Standing
from paddler.metrics.distribution import Distribution
from paddler.wire.agent import Generate, Message
from paddler.wire.balancer import Finished, FinishReason, Opened, Tokens, Usage, encode_frame


def test_bounds_are_inclusive_and_weights_count() -> None:
    seen = Distribution((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 2), (1.5, 1), (9.0, 3)):
        seen.observe(value, times)
    assert seen.buckets() == [("1.0", 3.0), ("2.0", 4.0), ("+Inf", 7.0)]
    assert seen.sum == 0.5 + 2.0 + 1.5 + 27.0


class Heard(Meter):
    def __init__(self) -> None:
        self.gaps: list[tuple[float, int]] = []
        self.ends: list[Measured] = []

    def tokens(self, measured: Measured, seconds: float, num_tokens: int) -> None:
        self.gaps.append((seconds, num_tokens))

    def ended(self, measured: Measured) -> None:
        self.ends.append(measured)


class World:
    """A request whose frames the test delivers, at times it names."""

    def __init__(self) -> None:
        self.heard = Heard()
        payload = Generate(messages=(Message("user", "x"),))
        self.measuring = Measuring(measured_of("default", payload, Submit(tenant="t"), 100.0), [self.heard])
        self.mailbox = Mailbox("default.x", now=100.0, start_deadline=None)
        self.reply = Reply(self.mailbox, lambda _: None, standing=Standing(1, 1, None))
        self.offset = 0

    def deliver(self, now: float, *frames: Opened | Tokens | Finished) -> None:
        data = b"".join(map(encode_frame, frames))
        self.mailbox.feed(self.offset, data, now)
        self.offset += len(data)

    @property
    def end(self) -> Measured:
        (measured,) = self.heard.ends
        return measured


async def leave(reply: Reply, error: BaseException | None = None) -> None:
    await reply.__aexit__(type(error) if error else None, error, None)


pytestmark = pytest.mark.anyio


async def test_times_are_those_of_the_deliveries() -> None:
    world = World()
    reply = world.measuring.accepted(world.reply)
    world.deliver(103.0, Opened("a", 2))
    assert len(list(reply.read())) == 1
    world.deliver(104.0, Tokens((1,), "a"))
    list(reply.read())
    world.deliver(104.5, Tokens((2, 3), "b"), Tokens((4,), "c"))
    list(reply.read())
    world.deliver(105.0, Finished(FinishReason.LENGTH, Usage(7, 4, 3)))
    list(reply.read())
    await leave(reply)
    end = world.end
    assert (end.opened_at, end.first_token_at, end.last_token_at, end.ended_at) == (103.0, 104.0, 104.5, 105.0)
    assert (end.prompt_tokens, end.cached_tokens, end.output_tokens) == (7, 3, 4)
    assert (end.outcome, end.agent_name, end.attempt, end.operation, end.tenant) == ("length", "a", 2, "chat", "t")
    assert world.heard.gaps == [(0.5, 3)]


async def test_what_came_while_nobody_read_is_one_gap() -> None:
    world = World()
    reply = world.measuring.accepted(world.reply)
    world.deliver(101.0, Opened("a", 1), Tokens((1,), "a"))
    list(reply.read())
    world.deliver(102.0, Tokens((2,), "b"))
    world.deliver(103.0, Tokens((3,), "c"))
    list(reply.read())
    assert world.heard.gaps == [(2.0, 2)]


async def test_ends_that_are_no_answers() -> None:
    refused = World()
    refused.measuring.refused(BufferFull("full"))
    assert (refused.end.outcome, refused.end.opened_at, refused.end.ended_at) == ("buffer_full", None, None)
    for error, outcome in (
        (GeneratorExit(), "client_gone"),
        (ZeroDivisionError(), "internal_error"),
        (None, "background"),
    ):
        world = World()
        await leave(world.measuring.accepted(world.reply), error)
        assert (world.end.outcome, world.end.ended_at) == (outcome, None)
    followed = World()
    followed.reply.standing = None
    followed.measuring.accepted(followed.reply)
    await leave(followed.reply)
    assert followed.end.outcome == "duplicate"
