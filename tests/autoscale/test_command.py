"""Flags of `paddler autoscale`, what reaches its agents, and what it prints of itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable

import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from paddler.autoscale.command import command, environment_of_agents, settings_of
from paddler.autoscale.effects import Say, Start, Stop
from paddler.autoscale.instance import Instance, Phase
from paddler.autoscale.policy import Policy
from paddler.autoscale.record import Record, Records, kept_instances, restore
from paddler.autoscale.scaler import Scaler
from paddler.autoscale.seen import Condition, Seen, SeenAgent
from paddler.store.client import Store

pytestmark = pytest.mark.anyio

EXEC = ("--driver", "exec", "--start-command", "x", "--stop-command", "y")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--min", "3", "--max", "2"), "--min 3 is more than --max 2"),
        (("--driver", "exec", "--stop-command", "x"), "--driver exec needs --start-command"),
        (("--driver", "exec", "--start-command", "x", "--stop-command", " "), "--driver exec needs --stop-command"),
        (("--start-command", "x"), "--start-command needs --driver exec"),
        ((*EXEC, "--", "--model", "m"), "put them into --start-command"),
        (("--", "--name", "mine"), "--agent-name gives agents their names"),
        (("--", "--slots=2"), "give --slots before the --"),
        (("--", "--pool", "other"), "give --pool before the --"),
        (("--agent-name", "Auto"), "lower-case letters, digits and dashes"),
        (("--agent-name", "a-"), "no dash at the ends"),
        (("--target-demand-per-slot", "0"), "0<x<=1000"),
        (("--max", "0"), "1<=x<=1000"),
        (("--json",), "--json needs --status"),
        (("--model", "m"), "No such option"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(command, flags, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_what_agents_are_told() -> None:
    """Not what is ours, which may mean something else to them; what is theirs alone stays."""
    with command.make_context("autoscale", ["--pool", "chat", "--slots", "8", "--", "--model", "m.gguf"]) as context:
        given = dict(context.params)
        for name in ("status", "as_json"):
            del given[name]
        # How to get into Redis is in the URL by now.
        for name in ("username", "password_file", "tls_ca", "tls_cert", "tls_key"):
            del given[f"redis_{name}"]
        settings = settings_of(given)
        before = {"HOME": "/h", "PADDLER_CACHE_DIR": "/c", "PADDLER_MAX": "9", "PADDLER_REDIS_USERNAME": "us"}
        environment = environment_of_agents(before, settings)
    assert settings.agent_flags == ("--model", "m.gguf")
    assert environment == {
        "HOME": "/h",
        "PADDLER_CACHE_DIR": "/c",
        "PADDLER_REDIS_URL": "redis://127.0.0.1:6379/0",
        "PADDLER_REDIS_PREFIX": "paddler",
        "PADDLER_POOL": "chat",
        "PADDLER_SLOTS": "8",
    }


def test_agents_with_a_login_of_their_own_have_nothing_of_ours() -> None:
    url = "rediss://us@redis.example:6380/1?password_file=/run/secrets/us&ssl_ca_certs=/ca.pem"
    for own, told in (("--threads", url), ("--redis-username", "rediss://redis.example:6380/1")):
        with command.make_context("autoscale", ["--", own, "2"]) as context:
            given = dict(context.params)
            names = ("username", "password_file", "tls_ca", "tls_cert", "tls_key")
            for name in ("status", "as_json", *(f"redis_{name}" for name in names)):
                del given[name]
            environment = environment_of_agents({}, settings_of({**given, "redis_url": url}))
        assert environment["PADDLER_REDIS_URL"] == told


def scaler_with(*instances: Instance) -> Scaler:
    scaler = Scaler(Policy(least=0, most=4, slots=2), "auto", ends_with_us=False)
    scaler.instances = {one.name: one for one in instances}
    return scaler


def record_of(scaler: Scaler, now: float, who: str = "autoscale-1") -> Record:
    return Record(
        who=who,
        host="h",
        pid=7,
        driver="exec",
        at_ms=0,
        policy=scaler.policy,
        demand=5,
        wanted=3,
        instances=kept_instances(scaler, now),
        failures=scaler.backoff.failures,
        trouble=scaler.backoff.trouble,
        retry_in_s=max(scaler.backoff.next_start - now, 0),
        held=scaler.held,
        drained=tuple(scaler.drained),
    )


async def test_the_next_autoscaler_goes_on_where_this_one_was(store: Store) -> None:
    """By what has been for how long: its clock is another one."""
    agent = SeenAgent(
        agent_id="agent-1", name="auto-2", is_ours=True, condition=Condition.READY, slots=2, requests=1, host="h"
    )
    before = scaler_with(
        Instance("auto-1", Phase.LAUNCHING, 95.0),
        Instance("auto-2", Phase.DRAINING, 90.0, agent=agent, is_known=True),
        Instance("auto-3", Phase.STOPPING, 99.0, is_known=True),
    )
    before.backoff.fail("quota", 99.0, is_final=False)
    before.drained = {"auto-2"}
    records = Records(store, "default")
    await store.redis.set(records.lease_key, "autoscale-1", px=60_000)
    assert await records.write(record_of(before, 100.0))
    found = await records.read()
    assert found is not None
    after = scaler_with()
    restore(after, found, 5000.0)
    phases = {one.name: (one.phase, one.since, one.stop_at) for one in after.instances.values()}
    assert phases == {
        "auto-1": (Phase.LAUNCHING, 4995.0, None),
        "auto-2": (Phase.DRAINING, 4990.0, None),
        "auto-3": (Phase.STOPPING, 4999.0, 5000.0),  # it is stopped once more
    }
    decided = after.on_seen(Seen(demand=0), 5000.0)
    assert [one for one in decided if not isinstance(one, Say)] == [Start("auto-1"), Stop("auto-3")]
    after.on_held_back("auto-1", 5000.0)
    assert Start("auto-1") in after.on_seen(Seen(demand=0), 5000.0), "it is not forgotten"
    after.on_held_back("auto-1", 5000.0)
    there = structs.replace(agent, name="auto-1")
    assert Start("auto-1") not in after.on_seen(Seen(demand=0, agents=(there,)), 5000.0)
    assert after.instances["auto-1"].phase is Phase.UP, "the autoscaler before came to it"
    assert after.drained == {"auto-2"}
    assert (after.backoff.failures, after.backoff.next_start) == (1, 5000.0)
    await store.redis.delete(f"{store.pool('default').keys.base}:autoscale")


@pytest.mark.parametrize("holder", ["autoscale-2", None])
async def test_only_who_holds_the_lease_writes(any_store: Store, holder: str | None) -> None:
    records = Records(any_store, "default")
    await any_store.redis.set(records.lease_key, "autoscale-1", px=60_000)
    assert await records.write(record_of(scaler_with(), 100.0))
    if holder is None:
        await any_store.redis.delete(records.lease_key)
    else:
        await any_store.redis.set(records.lease_key, holder, px=60_000)
    late = scaler_with(Instance("auto-1", Phase.LAUNCHING, 95.0))
    assert not await records.write(record_of(late, 100.0))
    found = await records.read()
    assert found is not None
    assert found.instances == ()


async def test_a_record_of_another_version_is_passed_over(store: Store) -> None:
    records = Records(store, "default")
    assert await records.read() is None
    await store.redis.set(f"{store.pool('default').keys.base}:autoscale", b'{"who": 1}', ex=60)
    assert await records.read() is None


async def test_the_status_says_why_nothing_is_started(store: Store) -> None:
    flags = ("--status", "--redis-url", store.url, "--redis-prefix", store.prefix)

    def run(*more: str) -> Awaitable[Result]:
        return asyncio.to_thread(CliRunner().invoke, command, (*flags, *more))

    nothing = await run()
    assert nothing.exit_code == 1
    assert "No autoscaler has been heard of for pool default" in nothing.output
    stuck = SeenAgent(
        agent_id="agent-1",
        name="auto-1",
        is_ours=True,
        condition=Condition.STUCK,
        slots=2,
        requests=0,
        trouble="ModelFileDoesNotExist: no.gguf",
    )
    scaler = scaler_with(Instance("auto-1", Phase.UP, 90.0, agent=stuck, pid=5, host="gpu1", is_known=True))
    scaler.backoff.fail("auto-1 is stuck: ModelFileDoesNotExist: no.gguf", 99.0, is_final=True)
    scaler.held = scaler.backoff.trouble
    records = Records(store, "default")
    await store.redis.set(records.lease_key, "autoscale-1", px=60_000)
    assert await records.write(record_of(scaler, 100.0))
    shown = " ".join((await run()).output.split())
    for part in (
        "process 7 on h, driver exec",
        "0 to 4, each with 2 slots; 3 wanted",
        "no agent is started: auto-1 is stuck: ModelFileDoesNotExist: no.gguf",
        "1 in a row",
        "next try in 4 min 59 s",
        "auto-1 up, stuck 10.0 s agent-1 5 on gpu1",
    ):
        assert part in shown
    told = json.loads((await run("--json")).output)
    assert told["is_acting"] is True
    assert told["instances"][0]["trouble"] == "ModelFileDoesNotExist: no.gguf"
    await store.redis.delete(records.lease_key)
    assert "does not act" in (await run()).output
