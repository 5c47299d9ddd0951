"""Typed functions over the Lua scripts of one pool, each beside the `.lua` file of its name.

All are idempotent: repeated with the same arguments (a connection lost after the call ran) they change
nothing and give the same answer. Times are ms; `now_ms` 0 means the server's clock, and only tests pass
another. Every function raises `redis.RedisError` or `OSError` when the server cannot be reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from msgspec import Struct

from paddler.store.keys import PoolKeys
from paddler.wire.balancer import Usage

Value = str | bytes | int | float

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
    "reap",
    "attach",
)


class Admission(StrEnum):
    ASSIGNED = "assigned"
    WAITING = "waiting"
    FULL = "full"
    KNOWN = "known"


class Submitted(Struct, frozen=True):
    """`position` is 0-based within the class; for `FULL` the number waiting."""

    admission: Admission
    position: int


class Disposition(StrEnum):
    """What became of a call under a fence."""

    OK = "ok"
    CANCELLED = "cancelled"
    FENCED = "fenced"
    GONE = "gone"
    SHORT = "short"
    LONG = "long"


class OpenedRequest(Struct, frozen=True):
    disposition: Disposition
    payload: bytes = b""
    journal: bytes = b""


class Emission(Struct, frozen=True):
    """Frames of one request for `emit`: they start at journal byte `offset`."""

    request_id: str
    attempt: int
    offset: int
    frames: bytes


class Placed(Struct, frozen=True):
    """`length` is the journal's length after the call (for `SHORT` and `LONG`: as found)."""

    disposition: Disposition
    length: int


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cancelled(StrEnum):
    CANCELLED = "cancelled"
    CANCELLING = "cancelling"
    ENDED = "ended"
    GONE = "gone"


class Renewed(Struct, frozen=True):
    """`is_alive` False: the lease is over, drop all slots and register under a new id."""

    is_alive: bool
    cancelled: tuple[str, ...] = ()
    expired_agents: tuple[str, ...] = ()


class Reaped(Struct, frozen=True):
    """`is_alive` True: nothing was done, the agent's lease holds."""

    is_alive: bool
    num_returned: int = 0
    num_failed: int = 0


class Attached(Struct, frozen=True):
    """`state` is None when Redis does not know the request; `journal` starts at the offset asked for."""

    state: str | None
    journal: bytes = b""


@cache
def source(name: str) -> str:
    """A script's text, `common.lua` included."""
    folder = files("paddler.store").joinpath("lua")
    return folder.joinpath("common.lua").read_text() + folder.joinpath(f"{name}.lua").read_text()


class PoolScripts:
    """The scripts, bound to one pool."""

    def __init__(self, client: Any, keys: PoolKeys) -> None:
        self.keys = keys
        self.redis = client
        self._scripts = {name: client.register_script(source(name)) for name in NAMES}

    async def submit(
        self,
        *,
        request_id: str,
        request_class: str,
        tenant: str,
        payload: bytes,
        inbox: str,
        start_timeout_ms: int,
        max_waiting: int,
        now_ms: int = 0,
    ) -> Submitted:
        """Accept a request: into the ledger and the buffer, and on to a lane if an agent may take it now."""
        status, position = await self._call(
            "submit", now_ms, request_id, request_class, tenant, payload, inbox, start_timeout_ms, max_waiting
        )
        return Submitted(Admission(status.decode()), position)

    async def claim(self, agent_id: str, *, now_ms: int = 0) -> int:
        """Fill the agent's free slots. Returns how many tickets it got; -1 when its lease is over."""
        return await self._call("claim", now_ms, agent_id)

    async def open(
        self, agent_id: str, request_id: str, attempt: int, frame: bytes, *, now_ms: int = 0
    ) -> OpenedRequest:
        """Begin a request under the fence; `frame` (`Opened`) is appended once an attempt."""
        status, *rest = await self._call("open", now_ms, agent_id, request_id, attempt, frame)
        return OpenedRequest(Disposition(status.decode()), *rest)

    async def emit(self, agent_id: str, emissions: Sequence[Emission], *, now_ms: int = 0) -> list[Placed]:
        """Append frames to journals and publish them; one answer an emission, in order."""
        flat: list[Value] = []
        for item in emissions:
            flat += (item.request_id, item.attempt, item.offset, item.frames)
        answers = await self._call("emit", now_ms, agent_id, *flat)
        return [
            Placed(Disposition(status.decode()), length)
            for status, length in zip(answers[::2], answers[1::2], strict=True)
        ]

    async def settle(self, agent_id: str, last: Emission, outcome: Outcome, usage: Usage, *, now_ms: int = 0) -> Placed:
        """End a request with its final frames, free its slot and claim again, in one step."""
        status, length, _claimed = await self._call(
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
        return Placed(Disposition(status.decode()), length)

    async def cancel(self, request_id: str, final_frame: bytes, *, now_ms: int = 0) -> Cancelled:
        """Stop a request. One that no agent has begun ends at once with `final_frame`."""
        return Cancelled((await self._call("cancel", now_ms, request_id, final_frame)).decode())

    async def expire(self, final_frame: bytes, *, limit: int = 100, now_ms: int = 0) -> int:
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
        now_ms: int = 0,
    ) -> int:
        """Enter the pool, with a lane. Returns how many tickets it got at once."""
        return await self._call("register", now_ms, agent_id, lease_ms, model, seen_s, *_flat(snapshot))

    async def renew(
        self, agent_id: str, *, lease_ms: int, snapshot: Mapping[str, Value] | None = None, now_ms: int = 0
    ) -> Renewed:
        """Prolong the lease, write the snapshot's fields, claim."""
        status, *rest = await self._call("renew", now_ms, agent_id, lease_ms, *_flat(snapshot or {}))
        if status == b"lost":
            return Renewed(is_alive=False)
        cancelled, expired = rest
        return Renewed(
            is_alive=True,
            cancelled=tuple(item.decode() for item in cancelled),
            expired_agents=tuple(item.decode() for item in expired),
        )

    async def drain(self, agent_id: str, *, now_ms: int = 0) -> int:
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
        now_ms: int = 0,
    ) -> Reaped:
        """Return the lane of an agent that is lost, or that leaves, to the buffer and forget the agent."""
        returned, failed = await self._call(
            "reap", now_ms, agent_id, max_deaths, dead_frame, cancel_frame, int(is_leaving)
        )
        return Reaped(is_alive=True) if returned < 0 else Reaped(False, returned, failed)

    async def attach(self, request_id: str, inbox: str, offset: int, *, now_ms: int = 0) -> Attached:
        """Follow a request from a journal offset on."""
        state, *rest = await self._call("attach", now_ms, request_id, inbox, offset)
        return Attached(None) if state == b"gone" else Attached(state.decode(), *rest)

    async def expired_agents(self, *, limit: int = 100) -> list[str]:
        """Agents whose lease is over by the server's clock; `reap` looks again before it acts."""
        seconds, micros = await self.redis.time()
        found = await self.redis.zrangebyscore(
            self.keys.agents(), "-inf", seconds * 1000 + micros // 1000, start=0, num=limit
        )
        return [agent_id.decode() for agent_id in found]

    async def _call(self, name: str, now_ms: int, *args: Value) -> Any:
        return await self._scripts[name](keys=[self.keys.base], args=[now_ms, *args])


def _flat(fields: Mapping[str, Value]) -> list[Value]:
    return [item for pair in fields.items() for item in pair]
