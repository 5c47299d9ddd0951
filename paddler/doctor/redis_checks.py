"""Is there a Redis, and is it one that can hold a queue?"""

from __future__ import annotations

from statistics import median
from typing import Any

from redis.exceptions import ResponseError

from paddler.clock import Clock
from paddler.doctor.finding import Finding, fail, ok, warn
from paddler.presence import clock_difference_ms
from paddler.store.client import TROUBLE, Store
from paddler.store.fitness import EVICTION, NO_AOF
from paddler.store.location import Location
from paddler.store.scripts import library

OLDEST = (7, 0)
NUM_PINGS = 20
SLOW_MS = 5.0
TOO_SLOW_MS = 100.0
CLOCK_WARN_MS = 1000.0
CLOCK_FAIL_MS = 30_000.0
FULL = 0.9
NEARLY_FULL = 0.75


async def reach(store: Store, shown: str, clock: Clock) -> Finding:
    """`shown` is the URL without its password. With retries, as every process has them."""
    try:
        began = clock.monotonic()
        await store.redis.ping()
    except TROUBLE as error:
        return fail("redis", f"{shown} cannot be used: {error or type(error).__name__}", _remedy(str(error)))
    return ok("redis", f"{shown} answers, the first time after {(clock.monotonic() - began) * 1000:.0f} ms")


def encryption(location: Location) -> list[Finding]:
    """Nothing for what does not leave this machine."""
    if location.tls is not None:
        checked = "" if location.tls.checks_hostname else ", without checking its host name"
        return [ok("redis encryption", f"TLS{checked}")]
    if all(host in ("localhost", "127.0.0.1", "::1") for host, _ in location.hosts):
        return []
    return [
        warn(
            "redis encryption",
            "prompts and passwords go to another machine as plain text",
            "use rediss:// with --redis-tls-ca, unless that network is private to both",
        )
    ]


async def settings(store: Store) -> list[Finding]:
    """Raises what Redis raises."""
    info: dict[str, Any] = await store.redis.info()
    return [
        _version(info),
        _role(info),
        _eviction(info),
        _persistence(info),
        _memory(info),
        _clients(info),
    ]


async def latency(store: Store, clock: Clock) -> Finding:
    took: list[float] = []
    for _ in range(NUM_PINGS):
        began = clock.monotonic()
        await store.pipe.call("PING")
        took.append((clock.monotonic() - began) * 1000)
    said = f"median {median(took):.2f} ms, slowest {max(took):.1f} ms of {NUM_PINGS}"
    remedy = "put Redis nearer to its clients; look for slow commands (SLOWLOG GET) and for a disk that AOF waits for"
    if median(took) >= TOO_SLOW_MS:
        return fail("redis latency", said, remedy)
    return warn("redis latency", said, remedy) if median(took) >= SLOW_MS else ok("redis latency", said)


async def functions(store: Store) -> Finding:
    """Libraries are named by their contents, so that versions stand side by side."""
    name = library()[0]
    try:
        listed: list[Any] = await store.pipe.call("FUNCTION", "LIST", "LIBRARYNAME", "paddler_*")
    except ResponseError as error:
        return warn("functions", f"not told: {error}", "give this user +function|list (docs/security.md)")
    names = [bytes(entry[entry.index(b"library_name") + 1]).decode() for entry in listed]
    others = len(set(names) - {name})
    beside = f"; {others} of other versions beside it, which do no harm (FUNCTION DELETE)" if others else ""
    if name in names:
        return ok("functions", f"{name} is loaded{beside}")
    return ok("functions", f"{name} is not loaded yet: the first balancer or worker of this version does it{beside}")


async def clock_difference(store: Store, clock: Clock) -> Finding:
    ahead = await clock_difference_ms(store, clock)
    return judge_clock("clock", "this machine's clock", ahead)


def judge_clock(check: str, whose: str, ahead_ms: float) -> Finding:
    """Leases and deadlines go by the clock of Redis alone; logs, batches and certificates by everyone's own."""
    said = f"{whose} is {abs(ahead_ms) / 1000:.2f} s {'ahead of' if ahead_ms > 0 else 'behind'} that of Redis"
    remedy = "run NTP on both (timedatectl set-ntp true)"
    if abs(ahead_ms) >= CLOCK_FAIL_MS:
        return fail(check, said, remedy)
    return warn(check, said, remedy) if abs(ahead_ms) >= CLOCK_WARN_MS else ok(check, said)


def _version(info: dict[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    parts = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2] if part.isdecimal())
    if parts < OLDEST:
        return fail("redis version", f"{name} {version} has no functions", "use Redis 7.0 or later, or any Valkey")
    return ok("redis version", f"{name} {version}")


def _role(info: dict[str, Any]) -> Finding:
    if info.get("role") != "master":
        return fail(
            "redis role",
            "it is a replica, which takes no writes",
            "connect to the primary, or to its Sentinels: redis+sentinel://host:port/service",
        )
    return ok("redis role", f"primary, with {info.get('connected_slaves', 0)} replicas")


def _eviction(info: dict[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return warn("redis eviction", "the server does not tell its maxmemory-policy", "see that it is noeviction")
    if policy != "noeviction":
        return fail("redis eviction", f"maxmemory-policy is {policy}", EVICTION)
    return ok("redis eviction", "maxmemory-policy is noeviction")


def _persistence(info: dict[str, Any]) -> Finding:
    name = "redis persistence"
    if "aof_enabled" not in info:
        return warn(name, "the server does not tell whether it has an append-only file", "see that appendonly is yes")
    if not info["aof_enabled"]:
        return warn(name, "appendonly is no", NO_AOF)
    for field in ("aof_last_write_status", "aof_last_bgrewrite_status"):
        if info.get(field, "ok") != "ok":
            return fail(name, f"{field} is {info[field]}", "look at the disk of Redis: is it full?")
    return ok(name, "append-only file")


def _memory(info: dict[str, Any]) -> Finding:
    name, used = "redis memory", int(info.get("used_memory", 0))
    limit = int(info.get("maxmemory", 0))
    bound = limit or int(info.get("total_system_memory", 0))
    whose = "maxmemory" if limit else "its machine"
    if not bound:
        return ok(name, f"{used / 2**20:.0f} MiB used")
    said = f"{used / 2**20:.0f} MiB used of {bound / 2**20:.0f} MiB ({whose})"
    remedy = (
        "give it more (maxmemory), or store less: --max-stored-bytes, --max-stored, --response-ttl, "
        "--max-batch-requests; when it is full, new requests are refused with 503"
    )
    if used >= FULL * bound:
        return fail(name, said, remedy)
    return warn(name, said, remedy) if used >= NEARLY_FULL * bound else ok(name, said)


def _clients(info: dict[str, Any]) -> Finding:
    name, used, limit = "redis clients", int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    said = f"{used} of {limit} connections" if limit else f"{used} connections"
    if limit and used >= NEARLY_FULL * limit:
        return warn(name, said, "raise maxclients, and the limit of open files of its process")
    return ok(name, said)


def _remedy(error: str) -> str:
    lower = error.lower()
    if "certificate" in lower or "ssl" in lower:
        return "see that the certificate is for this host name, and name its authority with --redis-tls-ca"
    if "auth" in lower or "wrongpass" in lower or "username" in lower:
        return "give the ACL user with --redis-username and --redis-password-file (docs/security.md)"
    if "no permissions" in lower or "noperm" in lower:
        return "this ACL user lacks a right: compare it with what `paddler acl` prints"
    if "sentinel" in lower:
        return "see that the Sentinels run and that the service has this name"
    return "start Redis or Valkey there, or name another with --redis-url; does a firewall stand between?"
