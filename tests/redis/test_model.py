"""Any sequence of script calls against the pure model of a request's life, on Valkey 9 and Redis 7.0.

`PADDLER_TEST_SIZE=full` (`make test-full`) runs many more and longer sequences.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from queue_calls import IS_FULL
from queue_driver import QueueDriver

from paddler.store.client import connect
from paddler.testing.servers import RedisServer

SETTINGS = settings(
    max_examples=400 if IS_FULL else 60,
    stateful_step_count=120 if IS_FULL else 50,
    deadline=None,
    derandomize=not IS_FULL,  # as `random_source`
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    print_blob=True,
)
NUMBERS = st.integers(0, 4095)


class QueueMachine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = connect(self.url, f"t{secrets.token_hex(4)}")
        self.driver = QueueDriver(self.store.pool("default"))
        self.is_broken = False

    def act(self, action: Awaitable[None], is_repeating: bool = False) -> None:
        async def run() -> None:
            await action

        self.driver.is_repeating = is_repeating
        self.is_broken = True
        self.runner.run(run())
        self.is_broken = False

    def teardown(self) -> None:
        """All that is left ends, once, and leaves nothing behind but what is kept for a while."""
        try:
            if not self.is_broken:
                self.act(self.driver.finish())
        finally:
            self.runner.run(self.store.close())
            self.runner.close()

    @initialize(slots=NUMBERS)
    def start(self, slots: int) -> None:
        self.act(self.driver.register(slots))

    @rule(who=NUMBERS, what=NUMBERS, how=NUMBERS, again=st.booleans())
    def submit(self, who: int, what: int, how: int, again: bool) -> None:
        self.act(self.driver.submit(who, what, how), again)

    @rule(slots=NUMBERS, again=st.booleans())
    def register(self, slots: int, again: bool) -> None:
        self.act(self.driver.register(slots), again)

    @rule(which=NUMBERS, again=st.booleans())
    def claim(self, which: int, again: bool) -> None:
        self.act(self.driver.claim(which), again)

    @rule(which=NUMBERS)
    def deliver(self, which: int) -> None:
        self.act(self.driver.deliver(which))

    @rule(which=NUMBERS, again=st.booleans())
    def deliver_and_open(self, which: int, again: bool) -> None:
        self.act(self.driver.deliver(which))
        self.act(self.driver.open(which), again)

    @rule(which=NUMBERS, how=NUMBERS, again=st.booleans())
    def emit(self, which: int, how: int, again: bool) -> None:
        self.act(self.driver.emit(which, how), again)

    @rule(which=NUMBERS, how=NUMBERS, again=st.booleans())
    def settle(self, which: int, how: int, again: bool) -> None:
        self.act(self.driver.settle(which, how), again)

    @rule(which=NUMBERS, how=NUMBERS, again=st.booleans())
    def cancel(self, which: int, how: int, again: bool) -> None:
        self.act(self.driver.cancel(which, how), again)

    @rule(which=NUMBERS, how=NUMBERS, again=st.booleans())
    def attach(self, which: int, how: int, again: bool) -> None:
        self.act(self.driver.attach(which, how), again)

    @rule(which=NUMBERS, how=NUMBERS, again=st.booleans())
    def repair(self, which: int, how: int, again: bool) -> None:
        self.act(self.driver.repair(which, how), again)

    @rule(again=st.booleans())
    def expire(self, again: bool) -> None:
        self.act(self.driver.expire(), again)

    @rule(which=NUMBERS, again=st.booleans())
    def drain(self, which: int, again: bool) -> None:
        self.act(self.driver.drain(which), again)

    @rule(which=NUMBERS, how=NUMBERS, again=st.booleans())
    def order(self, which: int, how: int, again: bool) -> None:
        self.act(self.driver.order(which, how), again)

    @rule(which=NUMBERS, again=st.booleans())
    def come_back(self, which: int, again: bool) -> None:
        self.act(self.driver.come_back(which), again)

    @rule(which=NUMBERS, again=st.booleans())
    def leave(self, which: int, again: bool) -> None:
        self.act(self.driver.reap(which, is_leaving=True), again)

    @rule(which=NUMBERS, again=st.booleans())
    def reap(self, which: int, again: bool) -> None:
        self.act(self.driver.reap(which, is_leaving=False), again)

    @rule(which=NUMBERS, again=st.booleans())
    def die(self, which: int, again: bool) -> None:
        self.act(self.driver.die(which), again)

    @rule(which=NUMBERS, again=st.booleans())
    def release(self, which: int, again: bool) -> None:
        self.act(self.driver.release(which), again)

    @rule(which=NUMBERS, what=NUMBERS, how=NUMBERS, again=st.booleans())
    def hold(self, which: int, what: int, how: int, again: bool) -> None:
        self.act(self.driver.hold(which, what, how), again)

    @rule(how=NUMBERS)
    def wait(self, how: int) -> None:
        self.act(self.driver.wait(how))


@pytest.mark.timeout(3600 if IS_FULL else 120)
@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_the_scripts_are_the_model(server: str, request: pytest.FixtureRequest) -> None:
    running: RedisServer = request.getfixturevalue(server)
    machine = type("QueueMachine", (QueueMachine,), {"url": running.url})
    run_state_machine_as_test(machine, settings=SETTINGS)  # pyright: ignore[reportUnknownMemberType]  # untyped
