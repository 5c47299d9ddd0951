"""Typed functions over the Lua scripts of one pool, each beside the `.lua` file of its name.

All are idempotent: repeated with the same arguments (a connection lost after the call ran) they change
nothing and give the same answer. Times are ms; `now_ms` 0 means the server's clock, and only tests pass
another. Every function raises `redis.RedisError` or `OSError` when the server cannot be reached.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from paddler.store.format import FORMAT, OLDEST_FORMAT
from paddler.store.keys import MAX_MODELS, PoolKeys
from paddler.store.pipe import Pipe, Value
from paddler.store.results import (
    Admission,
    Attached,
    AuditItem,
    Cancelled,
    Claimed,
    Disposition,
    Emission,
    Entered,
    Entry,
    Mended,
    OpenedRequest,
    Order,
    Ordered,
    Outcome,
    Placed,
    Reaped,
    Renewed,
    Repair,
    Requeued,
    Submission,
    Submitted,
)
from paddler.wire.balancer import Usage

NAMES = (
    "submit",
    "claim",
    "open",
    "emit",
    "settle",
    "cancel",
    "expire",
    "register",
    "renew",
    "drain",
    "order",
    "reap",
    "attach",
    "hold",
    "release",
    "repair",
    "orphan",
    "follow",
    "audit",
    "requeue",
    "drop",
    "keep",
    "forget",
    "touch",
    "change_batch",
    "open_batch",
    "turn",
    "end_turn",
    "write_desired",
    "change_key",
    "reserve",
    "adjust",
    "account",
    "lead",
    "served",
    "enter",
    "aside",
    "pin_prefix",
    "unpin_prefix",
)
PRELUDE = ("common", "format", "names", "queue", "choice", "place", "draining", "limits")

BRINGS_MORE = (
    *("submit", "open", "emit", "register", "hold", "repair", "requeue", "keep"),
    *("write_desired", "change_key", "reserve", "open_batch", "pin_prefix"),
)
"""Refused when Redis is out of memory. The others end or move what is there, or are needed to stay alive."""

LARGE = 64 * 1024
"""Bytes from which on a call goes another way than the small ones."""

NOT_LOADED = (
    "Redis does not have the functions of this version of Paddler yet, and our ACL user may not load them: start a "
    "balancer or a worker of this version first"
)


@cache
def source(name: str) -> str:
    """The text of a `.lua` file."""
    return files("paddler.store").joinpath("lua", f"{name}.lua").read_text()


@cache
def library(number: int = FORMAT, oldest: int = OLDEST_FORMAT) -> tuple[str, str]:
    """Name and text of the function library: the prelude, and each script as a function of it. The name is made from
    the text, so that processes of several versions can share a server."""
    numbers = {"@FORMAT@": str(number), "@OLDEST_FORMAT@": str(oldest)}
    parts = [re.sub("@[A-Z_]+@", lambda found: numbers[found[0]], source(name)) for name in PRELUDE]
    for name in NAMES:
        flags = "{}" if name in BRINGS_MORE else "{'allow-oom'}"
        body = f"function(KEYS, ARGV)\nbegin(KEYS, ARGV)\n{source(name)}end"
        parts.append(f"redis.register_function{{function_name='@_{name}', flags={flags}, callback={body}}}\n")
    text = "".join(parts)
    known_as = f"paddler_{hashlib.sha1(text.encode()).hexdigest()[:16]}"
    return known_as, f"#!lua name={known_as}\n{text.replace('@_', f'{known_as}_')}"


class ScriptCaller:
    """Runs scripts by name; a server that does not know the library (it is new, or another one) is told it."""

    def __init__(self, pipe: Pipe, bulk: Pipe, number: int = FORMAT, oldest: int = OLDEST_FORMAT) -> None:
        """`bulk` takes what is large."""
        self._pipe = pipe
        self._bulk = bulk
        known_as, self._text = library(number, oldest)
        self._functions = {name: f"{known_as}_{name}" for name in NAMES}

    async def call(self, name: str, *args: Value, is_large: bool = False) -> Any:
        pipe = self._bulk if is_large else self._pipe
        try:
            return await pipe.call("FCALL", self._functions[name], 1, *args)
        except ResponseError as error:
            if not str(error).startswith("Function not found"):
                raise
        try:
            await pipe.call("FUNCTION", "LOAD", "REPLACE", self._text)
        except NoPermissionError:
            raise NoPermissionError(NOT_LOADED) from None
        return await pipe.call("FCALL", self._functions[name], 1, *args)


class PoolScripts:
    """The scripts, bound to one pool. `redis` is redis-py's client."""

    def __init__(self, client: Any, caller: ScriptCaller, keys: PoolKeys) -> None:
        self.keys = keys
        self.redis = client
        self._caller = caller

    async def submit(self, submission: Submission, *, now_ms: float = 0) -> Submitted:
        """Accept a request: into the ledger and the buffer, and on to a lane if an agent may take it now."""
        status, number, request_id = await self._call(
            "submit",
            now_ms,
            submission.request_id,
            submission.request_class,
            submission.tenant,
            submission.payload,
            submission.inbox,
            submission.start_timeout_ms,
            submission.max_waiting,
            submission.chain,
            submission.prompt_tokens,
            submission.output_tokens,
            submission.weight,
            submission.hint,
            submission.tenant_max_waiting,
            submission.rate,
            submission.max_wait_ms,
            int(submission.is_background),
            submission.idempotency_key,
            submission.idempotency_ttl_s,
            submission.fingerprint,
            submission.label,
            submission.journal,
            submission.api_key,
            is_large=len(submission.payload) + len(submission.journal) > LARGE,
        )
        return Submitted(Admission(status.decode()), number, request_id.decode())

    async def claim(self, agent_id: str, *, now_ms: float = 0) -> Claimed:
        """Fill the agent's free slots."""
        return Claimed(*await self._call("claim", now_ms, agent_id))

    async def open(
        self, agent_id: str, request_id: str, attempt: int, frame: bytes, *, most_peers: int = 0, now_ms: float = 0
    ) -> OpenedRequest:
        """Begin a request under the fence; `frame` (`Opened`) is appended once an attempt. At most `most_peers` agents
        that hold more of its beginning are named."""
        # What comes back may be large: the tokens of others must not stand behind 32 MiB of images.
        arguments = (agent_id, request_id, attempt, frame, most_peers)
        status, *rest = await self._call("open", now_ms, *arguments, is_large=True)
        peers: list[bytes] = rest.pop() if len(rest) > 2 else []
        return OpenedRequest(Disposition(status.decode()), *rest, peers=tuple(one.decode() for one in peers))

    async def emit(self, agent_id: str, emissions: Sequence[Emission], *, now_ms: float = 0) -> list[Placed]:
        """Append frames to journals and publish them; one answer an emission, in order."""
        flat: list[Value] = []
        for item in emissions:
            flat += (item.request_id, item.attempt, item.offset, item.frames)
        answers = await self._call("emit", now_ms, agent_id, *flat)
        return [
            Placed(Disposition(status.decode()), length)
            for status, length in zip(answers[::2], answers[1::2], strict=True)
        ]

    async def settle(
        self, agent_id: str, last: Emission, outcome: Outcome, usage: Usage, *, now_ms: float = 0
    ) -> Placed:
        """End a request with its final frames, free its slot and claim again, in one step."""
        status, length, _given, steal_after_ms = await self._call(
            "settle",
            now_ms,
            agent_id,
            last.request_id,
            last.attempt,
            last.offset,
            last.frames,
            outcome,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
        )
        return Placed(Disposition(status.decode()), length, steal_after_ms)

    async def cancel(
        self,
        request_id: str,
        final_frame: bytes,
        *,
        leaving_inbox: str = "",
        may_come_back: bool = False,
        now_ms: float = 0,
    ) -> Cancelled:
        """Stop a request. One that no agent has begun ends at once with `final_frame`.

        With `leaving_inbox` only that inbox stops following it, and the request is stopped if that was the last one,
        it is not a background request, and its client will not come back."""
        arguments = (request_id, final_frame, leaving_inbox, int(may_come_back))
        return Cancelled((await self._call("cancel", now_ms, *arguments)).decode())

    async def expire(self, final_frame: bytes, *, limit: int = 100, now_ms: float = 0) -> int:
        """Fail waiting requests past their start deadline. Returns how many; repeat while it is `limit`."""
        return await self._call("expire", now_ms, limit, final_frame)

    async def register(
        self,
        agent_id: str,
        *,
        lease_ms: int,
        model: str,
        seen_s: int,
        snapshot: Mapping[str, Value],
        now_ms: float = 0,
    ) -> Claimed:
        """Enter the pool, with a lane; `num_given` -1: its process was removed, and does not come back; -2: its
        format may not work here (any more)."""
        return Claimed(*await self._call("register", now_ms, agent_id, lease_ms, model, seen_s, *_flat(snapshot)))

    async def enter(self, version: str, *, may_raise: bool, now_ms: float = 0) -> Entered:
        """May this format work on the pool? If so it is noted. `may_raise`: older formats may be shut out by that."""
        status, number, oldest, who = await self._call("enter", now_ms, version, int(may_raise))
        return Entered(Entry(status.decode()), number, oldest, who.decode())

    async def aside(
        self, agent_id: str, *, lease_ms: int, snapshot: Mapping[str, Value] | None = None, now_ms: float = 0
    ) -> None:
        """Show an agent that may not work here; 0 as the lease forgets it."""
        await self._call("aside", now_ms, agent_id, lease_ms, *_flat(snapshot or {}))

    async def served(self, names: Sequence[str], *, grace_ms: int, seen_s: int, now_ms: float = 0) -> list[str]:
        """Note which names of models are served now or, `names`, given by the desired state, and drop those that have
        not been for the grace time while others were, and the oldest of too many. Returns what was dropped."""
        dropped: list[bytes] = await self._call("served", now_ms, grace_ms, seen_s, MAX_MODELS, *names)
        return [name.decode() for name in dropped]

    async def renew(
        self, agent_id: str, *, lease_ms: int, snapshot: Mapping[str, Value] | None = None, now_ms: float = 0
    ) -> Renewed:
        """Prolong the lease, write the snapshot's fields, claim."""
        status, *rest = await self._call("renew", now_ms, agent_id, lease_ms, *_flat(snapshot or {}))
        if status == b"lost":
            return Renewed(is_alive=False)
        cancelled, expired, steal_after_ms, asked = rest
        return Renewed(
            is_alive=True,
            cancelled=tuple(item.decode() for item in cancelled),
            expired_agents=tuple(item.decode() for item in expired),
            steal_after_ms=steal_after_ms,
            asked=asked.decode(),
        )

    async def order(self, agent_id: str, order: Order, *, now_ms: float = 0) -> Ordered | None:
        """Tell an agent to take no more work, to take it again, or to end. None: it is not in this pool."""
        status, *num_running = await self._call("order", now_ms, agent_id, order)
        return None if status == b"gone" else Ordered(status == b"ok", *num_running)

    async def drain(self, agent_id: str, *, now_ms: float = 0) -> int:
        """Take no more work; tickets not begun go back. Returns how many requests still run."""
        return await self._call("drain", now_ms, agent_id)

    async def reap(
        self,
        agent_id: str,
        *,
        max_deaths: int,
        dead_frame: bytes,
        cancel_frame: bytes,
        is_leaving: bool = False,
        now_ms: float = 0,
    ) -> Reaped:
        """Return the lane of an agent that is lost, or that leaves, to the buffer and forget the agent."""
        returned, failed = await self._call(
            "reap", now_ms, agent_id, max_deaths, dead_frame, cancel_frame, int(is_leaving)
        )
        return Reaped(is_alive=True) if returned < 0 else Reaped(False, returned, failed)

    async def attach(self, request_id: str, inbox: str, offset: int, *, now_ms: float = 0) -> Attached:
        """Follow a request from a journal offset on."""
        state, *rest = await self._call("attach", now_ms, request_id, inbox, offset)
        return Attached(None) if state == b"gone" else Attached(state.decode(), *rest)

    async def hold(
        self,
        agent_id: str,
        *,
        ttl_ms: int,
        added: Sequence[str] = (),
        removed: Sequence[str] = (),
        is_shared: bool = False,
        now_ms: float = 0,
    ) -> bool:
        """Publish what the agent's KV cache holds from now on (hashes of prefix chains), and with `is_shared` the store
        that the fleet shares. False: its lease is over."""
        arguments = (agent_id, ttl_ms, int(is_shared), len(added), *added, *removed)
        return await self._call("hold", now_ms, *arguments) == 1

    async def release(
        self, agent_id: str, request_id: str, attempt: int, *, is_fresh: bool = False, now_ms: float = 0
    ) -> Disposition:
        """Give a running request back for want of room; another agent goes on with it. `is_fresh`: nothing has come of
        it yet, so that it may wait no longer than until the deadline for its start."""
        fresh = "1" if is_fresh else ""
        return Disposition((await self._call("release", now_ms, agent_id, request_id, attempt, fresh)).decode())

    async def repair(self, request_id: str, length: int, frames: bytes, *, now_ms: float = 0) -> tuple[Repair, int]:
        """Write back frames that a crashed Redis forgot, if the journal still has exactly that length."""
        status, found = await self._call("repair", now_ms, request_id, length, frames)
        return Repair(status.decode()), found

    async def orphan(
        self, request_ids: Sequence[str], *, grace_ms: int, inbox_prefix: str, now_ms: float = 0
    ) -> list[str]:
        """Those of the requests that no live balancer has followed for longer than the grace time."""
        found = await self._call("orphan", now_ms, grace_ms, inbox_prefix, *request_ids)
        return [request_id.decode() for request_id in found]

    async def follow(self, balancer_id: str, *, lease_ms: int, now_ms: float = 0) -> None:
        """Prolong a balancer's lease: its requests are followed."""
        await self._call("follow", now_ms, balancer_id, lease_ms)

    async def audit(
        self, items: Sequence[AuditItem], *, cancel_frame: bytes, max_summed: int = 1000, now_ms: float = 0
    ) -> list[Mended]:
        """Check the invariants around each item and put right what is broken; a whole pool is left as it is.

        The backlog is summed only while at most `max_summed` requests wait, which bounds the work."""
        flat = [field for item in items for field in (item.where, item.entry, item.id)]
        found = await self._call("audit", now_ms, cancel_frame, max_summed, *flat)
        return [Mended(what.decode(), item.decode()) for what, item in zip(found[::2], found[1::2], strict=True)]

    async def requeue(self, request_id: str, *, now_ms: float = 0) -> Requeued:
        """Give a dead letter a new life under its id, in the background: an empty journal, no deaths."""
        return Requeued((await self._call("requeue", now_ms, request_id)).decode())

    async def drop(self, request_id: str, *, now_ms: float = 0) -> bool:
        """Forget a dead letter. False: there is none of this id (any more)."""
        return await self._call("drop", now_ms, request_id) == 1

    async def keep(
        self, request_id: str, record: bytes, *, ttl_s: int, max_num: int, max_bytes: int, now_ms: float = 0
    ) -> bool:
        """Store what belongs to a response beside its request, and keep that for `ttl_s` after its end; those used
        longest ago make room. False: the request is not there (any more)."""
        arguments = (request_id, record, ttl_s, max_num, max_bytes)
        return await self._call("keep", now_ms, *arguments, is_large=len(record) > LARGE) == 1

    async def forget(self, request_id: str, *, now_ms: float = 0) -> bool:
        """Delete a stored response, and its request if that has ended. False: none was stored under this id."""
        return await self._call("forget", now_ms, request_id) == 1

    async def touch(self, request_ids: Sequence[str], *, ttl_s: int, now_ms: float = 0) -> int:
        """Keep stored responses for so long from now on. Returns how many of them are there."""
        return await self._call("touch", now_ms, ttl_s, *request_ids)

    async def expired_agents(self, *, limit: int = 100) -> list[str]:
        """Agents whose lease is over by the server's clock; `reap` looks again before it acts."""
        seconds, micros = await self.redis.time()
        found = await self.redis.zrangebyscore(
            self.keys.agents(), "-inf", seconds * 1000 + micros // 1000, start=0, num=limit
        )
        return [agent_id.decode() for agent_id in found]

    async def _call(self, name: str, now_ms: float, *args: Value, is_large: bool = False) -> Any:
        return await self._caller.call(name, self.keys.base, now_ms, *args, is_large=is_large)


def _flat(fields: Mapping[str, Value]) -> list[Value]:
    return [item for pair in fields.items() for item in pair]
