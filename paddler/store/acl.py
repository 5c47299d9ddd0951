"""Least privilege: which keys each kind of process needs, and the ACL users of Redis that have no more than that.

A function runs with the rights of whoever calls it, so what counts are keys and the commands inside. An agent's user is
for one pool; it may not load functions, because what it loaded would run with the rights of a balancer.

`docs/acl/users.acl` is what `paddler acl` prints for the pool `default`; `tests/secure/test_acl.py` holds them
together, and has every builder of a key stand in one of the tables.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from importlib.resources import files

from paddler.store.keys import FileKeys, PoolKeys, batch_jobs_key, inbox_channel, pools_key, upkeep_key, worker_key
from paddler.store.process_keys import process_key


class Role(StrEnum):
    AGENT = "agent"
    BALANCER = "balancer"
    WORKER = "worker"
    OPERATOR = "operator"
    AUTOSCALE = "autoscale"
    ADMIN = "admin"


ROLES = (Role.AGENT, Role.BALANCER, Role.WORKER, Role.OPERATOR, Role.AUTOSCALE)
"""The order of the columns below."""

POOL_KEYS: Mapping[str, str] = {
    "format": "rw rw rw r r",
    "buffer": "rw rw rw r rw",
    "order": "rw rw rw r rw",
    "age": "rw rw rw r rw",
    "lane": "rw rw rw r rw",
    "demand": "rw rw rw r rw",
    "demand_batch": "rw rw rw r rw",
    "agents": "rw rw rw r rw",
    "agent": "rw rw rw r rw",
    "starting": "rw - - - -",
    "free": "rw rw rw r rw",
    "request": "rw rw rw r rw",
    "payload": "rw rw rw - w",
    "journal": "rw rw rw - rw",
    "watchers": "rw rw rw - rw",
    "deadlines": "rw rw rw r rw",
    "vtime": "rw rw rw r rw",
    "tag": "rw rw rw r rw",
    "promoted": "rw rw rw r rw",
    "queued": "rw rw rw r rw",
    "aside": "rw rw rw r rw",
    "backlog": "rw rw rw r rw",
    "holders": "rw rw rw r rw",
    "held": "rw rw rw r rw",
    "kv_secret": "rw - - - -",
    "preempted": "rw rw rw r rw",
    "idempotency": "- rw rw - -",
    "response": "w rw rw - w",
    "kept": "rw rw rw r rw",
    "kept_by_age": "rw rw rw r rw",
    "balancers": "- rw rw r -",
    "marked": "rw rw rw r rw",
    "counters": "rw rw rw r rw",
    "models": "rw rw rw r rw",
    "served": "rw rw rw r rw",
    "dead": "rw rw rw r rw",
}
"""Builders of `PoolKeys`: what agent, balancer, worker, operator and autoscaler do with their keys. The last drains
agents, which gives to others what those have not begun."""

POOL_SUFFIXES: Mapping[str, str] = {
    ":desired": "r rw r r r",
    ":desired:history": "- rw r r -",
    ":turns": "rw - - r -",
    ":turns:lost": "rw - - r -",
    ":answer:*": "w rw - - -",
    ":drained:*": "rw rw rw r rw",
    ":used": "rw rw rw - rw",
    ":autoscale": "- - - r rw",
    ":autoscale:lease": "- - - r rw",
    ":prefixes": "r rw - r -",
    ":prefixes:contents": "r rw - r -",
    ":prefixes:hits": "rw rw - r -",
    ":prefixes:turn:*": "rw - - - -",
}
"""Keys of a pool that modules of their own build (`desired_keys.py`, ...): the end of them, in the same columns."""

SUFFIXES: Mapping[str, str] = {
    ":keys": "- rw r - -",
    ":tenants": "- rw rw r -",
    ":tenant:{*}": "- rw rw - -",  # what a function is called with
    ":tenant:{*}:*": "- rw rw - -",
    ":tenant:{*}:usage:*": "- rw rw r -",
    ":statsd:{*}:*": "- rw rw - -",
    ":panel:session:*": "- rw - - -",
    ":panel:history": "- rw - - -",
    ":panel:{history}:sampler": "- rw - - -",
}
"""The same for keys below the prefix, of no pool."""

POOL_CHANNELS = (":control:*", ":desired:changed", ":prefixes:changed")

FILE_KEYS: Mapping[str, str] = {
    "files": "- rw rw r -",
    "file": "- rw rw r -",
    "chunk": "- rw rw - -",
    "batches": "- rw rw r -",
    "batch": "- rw rw r -",
    "done": "- rw rw r -",
    "holder": "- rw rw r -",
    "open_batches": "- rw rw r -",
}
"""Builders of `FileKeys`, in the same columns."""


def _other_keys(prefix: str) -> Iterator[tuple[str, str]]:
    """Patterns of the keys that belong to no pool, in the same columns."""
    yield pools_key(prefix), "rw rw rw r rw"
    yield worker_key(prefix), "- r rw r -"
    yield process_key(prefix, "*"), "w rw w r w"
    yield upkeep_key(prefix), "- - rw r -"
    yield batch_jobs_key(prefix), "- rw rw r -"
    yield f"{upkeep_key(prefix)}:health-check", "- - rw - -"
    yield f"{batch_jobs_key(prefix)}:health-check", "- - rw - -"
    yield "arq:abort", "- - rw - -"  # one for all that use arq in this Redis
    for kind in ("job", "in-progress", "retry", "result"):
        yield f"arq:{kind}:{prefix}:*", "- rw rw - -"
    own = FileKeys(prefix)
    for name, access in FILE_KEYS.items():
        yield _pattern(own, name), access


CONNECTION = ("info", "ping", "role", "select", "time")
OWN_RIGHTS = ("acl|dryrun", "acl|whoami")
"""For `paddler doctor`."""
TRANSACTION = ("discard", "exec", "multi", "unwatch", "watch")
READING = (
    *("exists", "get", "getrange", "hget", "hgetall", "hkeys", "hlen", "hmget", "hvals", "mget", "scard", "sismember"),
    *("smembers", "strlen", "ttl", "type", "xlen", "xrange", "xrevrange", "zcard", "zcount", "zrange", "zrangebyscore"),
    *("zrank", "zrevrange", "zscore"),
)
WRITING = (
    *("del", "expire", "hdel", "hset", "psetex", "sadd", "set", "setex", "setrange", "srem", "unlink", "zadd", "zrem"),
    *("incr", "rpush", "xadd", "xtrim", "zremrangebyscore"),
)
CHANNELS = ("subscribe", "unsubscribe", "publish")

_COMMANDS: Mapping[Role, Sequence[str]] = {
    Role.AGENT: (*CHANNELS, "fcall", "xreadgroup"),
    Role.BALANCER: (*CHANNELS, "blpop", "fcall", "function|load", "function|list", "pubsub|numsub", "scan"),
    Role.WORKER: (
        *(*CHANNELS, "fcall", "function|load", "function|list"),
        *("dbsize", "scan", "srandmember", "zscan"),
    ),
    Role.OPERATOR: ("function|list", "scan"),
    Role.AUTOSCALE: ("fcall", "publish", "xread"),
}


def commands(role: Role) -> list[str]:
    """What a role may call, as ACLs write it, sorted."""
    found = {*CONNECTION, *OWN_RIGHTS, *TRANSACTION, *READING, *_COMMANDS[role]}
    if role is not Role.OPERATOR:
        found |= {*WRITING, *script_commands()}
    return sorted(found)


def script_commands() -> set[str]:
    """What the functions call, read from their text."""
    found: set[str] = set()
    for script in files("paddler.store").joinpath("lua").iterdir():
        for name, first in re.findall(r"redis\.p?call\('([A-Z]+)'(?:, '([A-Z]+)')?", script.read_text()):
            found.add(f"xgroup|{first.lower()}" if name == "XGROUP" else name.lower())
    return found


def key_patterns(role: Role, prefix: str, pool: str = "*") -> list[str]:
    """What a role may read (`%R~`), write (`%W~`) or both (`~`). A `pool` of `*` is all of them."""
    keys = PoolKeys(prefix, pool)
    column = ROLES.index(role)
    rows = [
        (keys.base, "rw rw rw - rw"),  # what a function is called with
        *((_pattern(keys, name), access) for name, access in POOL_KEYS.items()),
        *((keys.base + end, access) for end, access in POOL_SUFFIXES.items()),
        *((prefix + end, access) for end, access in SUFFIXES.items()),
        *_other_keys(prefix),
    ]
    written = {"r": "%R~{}", "w": "%W~{}", "rw": "~{}"}
    return [written[access].format(one) for one, row in rows if (access := row.split()[column]) != "-"]


def channel_patterns(role: Role, prefix: str, pool: str = "*") -> list[str]:
    if role is Role.OPERATOR:
        return []
    base = PoolKeys(prefix, pool).base
    return [f"&{inbox_channel(prefix, '*')}", *(f"&{base}{end}" for end in POOL_CHANNELS)]


def user_name(role: Role, pool: str = "*") -> str:
    return f"paddler-{role}-{pool}" if role is Role.AGENT else f"paddler-{role}"


def acl_user(role: Role, prefix: str, pool: str = "*", password: str | None = None) -> str:
    """A line of an ACL file. Without a password nobody can be that user, until one is set."""
    known = [] if password is None else [f"#{hashlib.sha256(password.encode()).hexdigest()}"]
    head = ["user", user_name(role, pool), "on", *known]
    if role is Role.ADMIN:
        return " ".join([*head, "~*", "&*", "+@all"])
    rights = [*key_patterns(role, prefix, pool), *channel_patterns(role, prefix, pool)]
    return " ".join([*head, *rights, *(f"+{one}" for one in commands(role))])


def acl_file(prefix: str, pools: Sequence[str], passwords: Mapping[Role, str] | None = None) -> str:
    """An ACL file: the default user off, ours, and one for administrators, since somebody must change all this."""
    known = passwords or {}
    agents = [acl_user(Role.AGENT, prefix, pool, known.get(Role.AGENT)) for pool in pools]
    others = [
        acl_user(role, prefix, password=known.get(role))
        for role in (Role.BALANCER, Role.WORKER, Role.OPERATOR, Role.AUTOSCALE, Role.ADMIN)
    ]
    return "\n".join(["user default off", *agents, *others, ""])


def _pattern(keys: object, name: str) -> str:
    """A builder called with `*` for each of its arguments."""
    build = getattr(keys, name)
    num_arguments: int = build.__func__.__code__.co_argcount - 1
    return build(*["*"] * num_arguments)
