"""`keys.py` is the data model and `common.lua` repeats it: the two must say the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from paddler.store.client import Store
from paddler.store.keys import CLASSES, GROUP, SIDES, PoolKeys
from paddler.store.scripts import NAMES, PoolScripts, source
from paddler.store.scripts_batch import BatchScripts
from paddler.store.scripts_desired import DesiredScripts
from paddler.store.scripts_lease import LeaseScripts
from paddler.store.scripts_prefix import PrefixScripts
from paddler.store.scripts_tenants import TenantScripts
from paddler.store.scripts_turns import TurnScripts
from paddler.store.tenant_keys import LIMITS_KEEP_S, USAGE_KEEP_S, USED_KEEP_S, TenantKeys, used_key
from paddler.store.turn_keys import losses_key, question_key, turns_key

SCRIPTS = (PoolScripts, BatchScripts, DesiredScripts, LeaseScripts, PrefixScripts, TenantScripts, TurnScripts)

pytestmark = pytest.mark.anyio

EXPECTED: dict[str, Callable[[PoolKeys], str]] = {
    "RECORD": lambda keys: keys.format(),
    "BUFFER": lambda keys: keys.buffer(),
    "AGE": lambda keys: keys.age(),
    "AGENTS": lambda keys: keys.agents(),
    "FREE": lambda keys: keys.free(),
    "DEADLINES": lambda keys: keys.deadlines(),
    "DEAD": lambda keys: keys.dead(),
    "ASIDE": lambda keys: keys.aside(),
    "COUNTERS": lambda keys: keys.counters(),
    "BALANCERS": lambda keys: keys.balancers(),
    "vtime_key('normal')": lambda keys: keys.vtime("normal"),
    "tag_key('batch', 'x')": lambda keys: keys.tag("batch", "x"),
    "promoted_key('normal', 'x')": lambda keys: keys.promoted("normal", "x"),
    "queued_key('background', 'x')": lambda keys: keys.queued("background", "x"),
    "backlog_key('foreground')": lambda keys: keys.backlog("foreground"),
    "holders_key('x')": lambda keys: keys.holders("x"),
    "held_key('x')": lambda keys: keys.held("x"),
    "preempted_key('x')": lambda keys: keys.preempted("x"),
    "idempotency_key('x', 'y')": lambda keys: keys.idempotency("x", "y"),
    "order_key('normal')": lambda keys: keys.order("normal"),
    "lane_key('x')": lambda keys: keys.lane("x"),
    "agent_key('x')": lambda keys: keys.agent("x"),
    "control_key('x')": lambda keys: keys.control("x"),
    "request_key('x')": lambda keys: keys.request("x"),
    "payload_key('x')": lambda keys: keys.payload("x"),
    "journal_key('x')": lambda keys: keys.journal("x"),
    "response_key('x')": lambda keys: keys.response("x"),
    "KEPT": lambda keys: keys.kept(),
    "KEPT_BY_AGE": lambda keys: keys.kept_by_age(),
    "USED": lambda keys: used_key(keys.base),
    "MODELS": lambda keys: keys.models(),
    "SERVED": lambda keys: keys.served(),
    "watchers_key('x')": lambda keys: keys.watchers("x"),
    "demand_key('normal')": lambda keys: keys.demand(),
    "demand_key('interactive')": lambda keys: keys.demand(),
    "demand_key('batch')": lambda keys: keys.demand_batch(),
    "table.concat(CLASSES, ' ')": lambda keys: " ".join(CLASSES),
    "table.concat(SIDES, ' ')": lambda keys: " ".join(SIDES),
    "GROUP": lambda keys: GROUP,
}


async def test_lua_and_python_build_the_same_keys(store: Store) -> None:
    keys = store.pool("default").keys
    script = source("common") + "begin(KEYS, ARGV)\nreturn {" + ", ".join(EXPECTED) + "}"
    built = await store.redis.eval(script, 1, keys.base, 0)
    assert [item.decode() for item in built] == [build(keys) for build in EXPECTED.values()]


def test_every_pool_key_carries_the_hash_tag() -> None:
    keys = PoolKeys("paddler", "chat")
    for name, method in inspect.getmembers(keys, inspect.ismethod):
        if name.startswith("_") or name == "permanent":
            continue
        arguments = ["x"] * len(inspect.signature(method).parameters)
        assert method(*arguments).startswith("paddler:{chat}:"), name
        assert "·" in (method.__doc__ or "") or "pub/sub" in (method.__doc__ or ""), (
            f"{name}: type, writer, reader, TTL"
        )


def test_so_do_those_of_changing_models() -> None:
    keys = PoolKeys("paddler", "chat")
    assert turns_key(keys).startswith("paddler:{chat}:")
    assert losses_key(keys).startswith("paddler:{chat}:")
    assert question_key(keys, "x").startswith("paddler:{chat}:")


def test_the_public_keys_of_autoscalers() -> None:
    """Changing these breaks every deployed KEDA trigger."""
    keys = PoolKeys("paddler", "default")
    assert (keys.demand(), keys.demand_batch()) == ("paddler:{default}:demand", "paddler:{default}:demand:batch")


TENANT_KEYS: dict[str, Callable[[TenantKeys], str]] = {
    "limits.key('x')": lambda keys: keys.limits("x"),
    "limits.open('x')": lambda keys: keys.open("x"),
    "limits.flight('x')": lambda keys: keys.flight("x"),
    "limits.reserved('x')": lambda keys: keys.reserved("x"),
    "limits.usage(20788)": lambda keys: keys.usage(20788),
    "limits.accounted()": lambda keys: keys.accounted(),
}


async def test_lua_and_python_build_the_same_keys_of_a_tenant(store: Store) -> None:
    keys = TenantKeys(store.prefix, "alice")
    parts = source("common"), source("limits"), "begin(KEYS, ARGV)\nreturn {" + ", ".join(TENANT_KEYS) + "}"
    built = await store.redis.eval("".join(parts), 1, keys.base, 0)
    assert [item.decode() for item in built] == [build(keys) for build in TENANT_KEYS.values()]


async def test_lua_keeps_usage_and_limits_as_long_as_python_says(store: Store) -> None:
    script = source("common") + source("limits") + "return {limits.KEEP_S, limits.USAGE_KEEP_S, USED_KEEP_S}"
    assert await store.redis.eval(script, 1, "x", 0) == [LIMITS_KEEP_S, USAGE_KEEP_S, USED_KEEP_S]


@pytest.mark.parametrize("name", NAMES)
def test_every_script_has_a_typed_function(name: str) -> None:
    assert any(inspect.iscoroutinefunction(getattr(scripts, name, None)) for scripts in SCRIPTS)
    assert "ARGV: now" in source(name), "a script says what its arguments are"
