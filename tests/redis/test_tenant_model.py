"""Random reservations, ends and accounts against a model in Python that says what the scripts must answer."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from paddler.store.client import Store, connect
from paddler.store.scripts_tenants import End, Verdict
from paddler.store.tenant_keys import TenantKeys
from paddler.testing.servers import RedisServer

DAY = 86_400_000
START = 20_788 * DAY + DAY - 90_000
"""Soon before midnight, so that days pass."""
MINUTE = 60_000
HOLD = 30_000
SLACK = 0.5
"""Where the model is this near to a limit, in units, rounding may decide either way."""


class Held(Struct):
    tokens: int
    until: float
    is_real: bool = False
    is_in_flight: bool = True


class Model:
    """GCRA in plain words: a bucket that fills at its rate and may be in debt."""

    def __init__(self, rpm: int, tpm: int, flight: int, daily: int) -> None:
        self.rpm, self.tpm, self.flight, self.daily = rpm, tpm, flight, daily
        self.levels = {"requests": float(rpm), "tokens": float(tpm)}
        self.now = float(START)
        self.held: dict[str, Held] = {}
        self.used: dict[int, int] = {}
        self.usage = [0, 0]

    def at(self, now: float) -> None:
        for name, limit in (("requests", self.rpm), ("tokens", self.tpm)):
            filled = self.levels[name] + (now - self.now) * limit / MINUTE
            self.levels[name] = min(filled, float(limit))
        self.now = now

    @property
    def today(self) -> int:
        return int(self.now // DAY)

    def sweep(self) -> None:
        self.held = {name: one for name, one in self.held.items() if one.until > self.now}

    def allowed(self, name: str, tokens: int) -> set[Verdict]:
        """What may be answered: one verdict, or two where rounding decides."""
        self.sweep()
        if name in self.held:
            return {Verdict.KNOWN}
        if self.flight and sum(one.is_in_flight for one in self.held.values()) >= self.flight:
            return {Verdict.IN_FLIGHT}
        found: set[Verdict] = set()
        for what, limit, need, verdict in (
            ("requests", self.rpm, 1, Verdict.REQUESTS),
            ("tokens", self.tpm, tokens, Verdict.TOKENS),
        ):
            missing = min(need, limit) - self.levels[what] if limit else -1.0
            if missing > -SLACK * 0.01:
                found.add(verdict)
            if missing > SLACK * 0.01:
                return found
        of_today = self.used.get(self.today, 0) + sum(one.tokens for one in self.held.values())
        return found | {Verdict.BUDGET if self.daily and of_today + tokens > self.daily else Verdict.OK}

    def reserve(self, name: str, tokens: int) -> None:
        self.levels["requests"] -= 1
        self.levels["tokens"] -= tokens
        self.held[name] = Held(tokens, self.now + HOLD)

    def correct(self, tokens: int) -> None:
        self.levels["tokens"] = min(self.levels["tokens"] - tokens, float(self.tpm))

    def ended(self, name: str, real: int) -> None:
        if (one := self.held.get(name)) is None:
            return
        one.is_in_flight = False
        if real >= 0 and not one.is_real:
            self.correct(real - one.tokens)
            one.tokens, one.is_real = real, True

    def refused(self, name: str) -> None:
        if (one := self.held.pop(name, None)) is not None:
            self.correct(-one.tokens)
            self.levels["requests"] = min(self.levels["requests"] + 1, float(self.rpm))

    def account(self, name: str, real: int) -> None:
        one = self.held.pop(name, None)
        if one is not None and not one.is_real:
            self.correct(real - one.tokens)
        self.used[self.today] = self.used.get(self.today, 0) + real
        self.usage[0] += 1
        self.usage[1] += real


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
TOKENS = st.integers(1, 60)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), NAMES, TOKENS),
        st.tuples(st.just("submitted"), NAMES, st.just(DAY)),
        st.tuples(st.just("ended"), NAMES, st.one_of(TOKENS, st.just(-1))),
        st.tuples(st.just("refused"), NAMES, st.just(1)),
        st.tuples(st.just("account"), NAMES, TOKENS),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 45_000)),
    ),
    max_size=40,
)
BOUNDS = st.tuples(st.integers(0, 4), st.integers(0, 120), st.integers(0, 3), st.integers(0, 200))


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, bounds=BOUNDS)
def test_the_scripts_do_as_the_model_says(
    valkey: RedisServer, steps: list[tuple[str, str, int]], bounds: tuple[int, int, int, int]
) -> None:
    asyncio.run(_run(valkey.url, steps, bounds))


async def _run(url: str, steps: list[tuple[str, str, int]], bounds: tuple[int, int, int, int]) -> None:
    store = connect(url, f"t{secrets.token_hex(4)}")
    try:
        await _check(store, steps, Model(*bounds))
    finally:
        if keys := await store.redis.keys(f"{store.prefix}:*"):
            await store.redis.unlink(*keys)
        await store.close()


async def _check(store: Store, steps: list[tuple[str, str, int]], model: Model) -> None:
    scripts, keys = store.tenant_scripts, TenantKeys(store.prefix, "alice")
    limits: dict[str, Any] = {"requests_per_minute": model.rpm, "tokens_per_minute": model.tpm}
    limits |= {"max_in_flight": model.flight, "daily_tokens": model.daily, "hold_ms": HOLD}
    for number, (what, name, amount) in enumerate(steps):
        now = model.now
        if what == "wait":
            model.at(now + amount)
        elif what == "reserve":
            allowed = model.allowed(name, amount)
            found = await scripts.reserve("alice", "k", name, tokens=amount, num_parts=1, now_ms=now, **limits)
            assert found.verdict in allowed, (found, model.levels)
            if found.verdict is Verdict.OK:
                model.reserve(name, amount)
            if model.rpm:
                assert abs(found.requests_left - max(model.levels["requests"], 0)) < 1 + SLACK
            if model.tpm:
                assert abs(found.tokens_left - max(model.levels["tokens"], 0)) < 1 + SLACK
        elif what == "account":
            entry = f"{int(now)}-{number}"
            end = End(entry, "k", name, "tiny", amount, 0, 0, is_first=True)
            assert await scripts.account("alice", "default", [end], now_ms=now) == 1
            assert await scripts.account("alice", "default", [end], now_ms=now) == 0
            model.account(name, amount)
        else:
            await scripts.adjust("alice", "k", name, what, amount, requests_per_minute=model.rpm, now_ms=now)
            if what == "submitted":
                if (one := model.held.get(name)) is not None:
                    one.until = max(one.until, now + amount)
            elif what == "ended":
                model.ended(name, amount)
            else:
                model.refused(name)
    await _check_sums(store, keys, model)


async def _check_sums(store: Store, keys: TenantKeys, model: Model) -> None:
    """What is held is what is reserved, and everything that ended is counted once."""
    redis = store.redis
    reserved = await redis.hgetall(keys.reserved("k"))
    held = sum(int(packed.split(b":")[0]) for packed in reserved.values())
    assert int(await redis.hget(keys.limits("k"), "held") or 0) == held
    assert held == sum(one.tokens for one in model.held.values())
    assert set(reserved) == set(await redis.zrange(keys.open("k"), 0, -1))
    assert await redis.smembers(keys.flight("k")) <= set(reserved)
    totals = [0, 0]
    for day in range(START // DAY, START // DAY + 3):
        usage = await redis.hgetall(keys.usage(day))
        totals[0] += int(usage.get(b"k|requests|tiny", 0))
        totals[1] += int(usage.get(b"k|prompt|tiny", 0))
    assert totals == model.usage
