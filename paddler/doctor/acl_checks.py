"""Has our ACL user what its processes need, and not everything?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from paddler.doctor.finding import Finding, fail, ok, warn
from paddler.settings import DEFAULT_POOL
from paddler.store.acl import Role, channel_patterns, commands, key_patterns
from paddler.store.client import Store
from paddler.store.location import Location

REMEDY = "set the users that `paddler acl` prints (docs/security.md)"
MAX_NAMED = 5


async def access(store: Store, location: Location, role: Role | None, pool: str = DEFAULT_POOL) -> list[Finding]:
    """`role` None: whichever the name of our user tells. Raises what Redis raises."""
    try:
        user = bytes(await store.pipe.call("ACL", "WHOAMI")).decode()
    except ResponseError as error:
        return [warn("redis user", f"not told: {error}", "give this user +acl|whoami +acl|dryrun, or check it by hand")]
    found = [await _open_door(store, user, location)]
    role = role or _role_of(user)
    if role is not None:
        found.append(await _rights(store, user, role, pool))
    return found


async def _open_door(store: Store, user: str, location: Location) -> Finding:
    if user != "default":
        return ok("redis user", user)
    try:
        answer: list[Any] = await store.pipe.call("ACL", "GETUSER", "default")
    except ResponseError:
        return ok("redis user", "default, which may not do everything")
    flags = answer[answer.index(b"flags") + 1]
    is_local = location.path is not None
    if b"nopass" in flags and not is_local:
        return warn(
            "redis user",
            "default without a password: whoever reaches Redis can read all prompts and change everything",
            REMEDY,
        )
    return ok("redis user", "default, on a socket of this machine" if is_local else "default, with a password")


def _role_of(user: str) -> Role | None:
    for role in Role:
        if user == f"paddler-{role}" or user.startswith(f"paddler-{role}-"):
            return role
    return None


async def _rights(store: Store, user: str, role: Role, pool: str) -> Finding:
    """By `ACL DRYRUN`, which does nothing: reading and writing of a key of each pattern, and each command."""
    if role is Role.ADMIN:
        return warn("redis rights", "the administrator's user", "let processes have users of their own: `paddler acl`")
    where = (store.prefix, pool if role is Role.AGENT else "x")
    lacking: list[str] = []
    try:
        for call, what in _uses(role, *where):
            if not await _may(store, user, call):
                lacking.append(what)
        example = _example(key_patterns(role, *where)[0])
        lacking += [f"+{one}" for one in commands(role) if not await _may_call(store, user, one, example)]
    except NoPermissionError as error:
        return warn("redis rights", f"not told: {error}", "give this user +acl|dryrun, or check it by hand")
    if lacking:
        named = ", ".join(lacking[:MAX_NAMED])
        more = f" and {len(lacking) - MAX_NAMED} more" if len(lacking) > MAX_NAMED else ""
        return fail("redis rights", f"user {user} lacks what a {role} needs: {named}{more}", REMEDY)
    return ok("redis rights", f"user {user} has what a {role} needs")


def _uses(role: Role, prefix: str, pool: str) -> Iterator[tuple[tuple[str, ...], str]]:
    for pattern in key_patterns(role, prefix, pool):
        kinds, key = pattern.partition("~")[0], _example(pattern)
        if kinds in ("", "%R"):
            yield ("GET", key), f"reading {key}"
        if kinds in ("", "%W"):
            yield ("SET", key, "x"), f"writing {key}"
    for pattern in channel_patterns(role, prefix, pool):
        channel = pattern[1:].replace("*", "x")
        yield ("SUBSCRIBE", channel), f"channel {channel}"


def _example(pattern: str) -> str:
    return pattern.partition("~")[2].replace("*", "x")


async def _may(store: Store, user: str, call: Sequence[str]) -> bool:
    return await store.pipe.call("ACL", "DRYRUN", user, *call) == b"OK"


async def _may_call(store: Store, user: str, command: str, key: str) -> bool:
    """Rights are looked at only when the number of arguments fits, so several are tried. What a server does not know
    at all is no question of rights."""
    name = command.split("|")
    if name[0] in ("subscribe", "unsubscribe", "publish"):
        return True  # with the channels above
    for arguments in ((key,), (key, "1"), (key, "1", "1"), (key, "1", "1", "1"), (), ("x", "1", key)):
        try:
            return await _may(store, user, (*name, *arguments))
        except NoPermissionError:
            raise
        except ResponseError:
            continue
    return True
