"""An agent's part in what its fleet remembers: the tiers that its settings name, and the door for other agents.

One for a process, whatever engines come and go; `opening.py` makes the keeper of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from paddler.clock import Clock
from paddler.kv_flags import KvSettings
from paddler.logs import get_logger
from paddler.presence import clock_difference_ms
from paddler.settings import Address
from paddler.store.client import Store
from paddler.store.location import locate
from paddler.store.pipe import Value
from paddler.store.scripts import PoolScripts
from workers.agent.tiers.contract import Tier, TierUnavailable
from workers.agent.tiers.disk import DiskTier
from workers.agent.tiers.passes import Passes
from workers.agent.tiers.peers import PeerTier
from workers.agent.tiers.restoring import RestoreSpeed
from workers.agent.tiers.secret import fleet_secret
from workers.agent.tiers.serving import BlockApp, BlockServer, Lend
from workers.agent.tiers.shared import SharedTier

MOST_PEERS = 3
STAY_POLL_S = 0.02
WILDCARDS = ("0.0.0.0", "::")

log = get_logger(__name__)


class CannotShare(Exception):
    """The settings cannot be, and time mends nothing; in one line."""


class Sharing:
    """`start` before anything else. What `most_peers`, `is_shared` and `fields` say is for the queue."""

    def __init__(self, settings: KvSettings, store: Store, pool: PoolScripts, clock: Clock) -> None:
        self.settings = settings
        self.secret = b""
        self.url = ""
        """Where other agents get what this one has; empty: nowhere."""
        self._store = store
        self._pool = pool
        self._clock = clock
        self._ahead_s = 0.0
        self._queue_id = ""
        self._speed = RestoreSpeed()
        self._passes: Passes | None = None
        self._server: BlockServer | None = None
        self._store_tier: SharedTier | None = None
        """The one that was made last."""

    async def start(self) -> None:
        """Get the fleet's secret, look at the store, listen. Raises `CannotShare`, and what Redis raises."""
        try:
            self.secret = await fleet_secret(self._pool)
        except ValueError as error:
            raise CannotShare(str(error)) from None
        self._ahead_s = await clock_difference_ms(self._store, self._clock) / 1000
        server: Mapping[str, Any] = await self._store.redis.info("server")
        self._queue_id = str(server.get("run_id", ""))
        if self.settings.url is not None:
            await self._look(self._open_store(self.settings.url))
        if self.settings.addr is not None and self._server is None:
            self._passes = Passes(self.secret)
            try:
                self._server = BlockServer(BlockApp(self._passes, self._clock, self._now_s), self.settings.addr)
            except OSError as error:
                raise CannotShare(f"--kv-addr {self.settings.addr}: {error.strerror}") from None
            self.url = self.settings.advertise or self._found_out(self.settings.addr.host, self._server.port)
            self._server.app.url = self.url
            self._server.start()
            log.info("giving states to other agents", address=self.url)

    def tiers(self) -> list[Tier]:
        """New ones, of one keeper, which closes them; nearest first."""
        made: list[Tier] = []
        if self.settings.disk is not None:
            made.append(DiskTier(self.settings.disk, self.settings.disk_bytes, self._clock))
        if self._passes is not None:
            made.append(PeerTier(self._passes, self._clock, self._now_s, own_url=self.url, speed=self._speed))
        if self.settings.url is not None:
            made.append(self._open_store(self.settings.url))
        return made

    def lends(self, lend: Lend | None) -> None:
        """Give this away from now on."""
        if self._server is not None:
            self._server.app.lend = lend

    @property
    def most_peers(self) -> int:
        """How many agents it wants to be told of for each request."""
        return MOST_PEERS if self.url else 0

    @property
    def is_shared(self) -> bool:
        """Whether what it holds is in the shared store, too, soon."""
        return self._store_tier is not None and self._store_tier.is_well

    def fields(self) -> Mapping[str, Value]:
        """Of the agent's hash."""
        speed = self._speed.tokens_per_s
        told: dict[str, Value] = {"kv_url": self.url} if self.url else {}
        if self.settings.url is not None:
            told["kv_shared"] = int(self.is_shared)
        return told | {"restore": round(speed, 1)} if speed else told

    async def stay(self, num_handed_over: int, since: float, hurry: asyncio.Event) -> None:
        """After requests were handed over at `since`: until others have come for as many, at most for the grace time,
        and no longer when told to hurry."""
        if self._server is None:
            return
        app, end = self._server.app, since + self.settings.grace_ms / 1000

        def is_done() -> bool:
            return sum(at >= since for at in app.asked_at) >= num_handed_over and not app.is_answering

        while not is_done() and not hurry.is_set() and self._clock.monotonic() < end:
            await self._clock.sleep(STAY_POLL_S)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _look(self, tier: SharedTier) -> None:
        try:
            is_ours = await asyncio.to_thread(tier.look)
        except TierUnavailable as error:
            log.warning(
                "the shared store does not answer; it is asked again when something is to be had", why=str(error)
            )
            return
        finally:
            tier.close()
        if not is_ours:
            raise CannotShare(
                "--kv-url is the server of the queue, by another name: states would push the queue out of its memory. "
                "Give them a Redis or Valkey of their own."
            )

    def _open_store(self, url: str) -> SharedTier:
        is_well = self.is_shared
        self._store_tier = SharedTier(url, self._clock, queue_id=self._queue_id, speed=self._speed)
        self._store_tier.is_well = is_well  # until it says otherwise
        return self._store_tier

    def _now_s(self) -> float:
        """By the clock of the queue's server, which the fleet has in common."""
        return self._clock.wall() - self._ahead_s

    def _found_out(self, host: str, port: int) -> str:
        if host in WILDCARDS:
            host = self._own_address()
        return f"http://{Address(host, port)}"

    def _own_address(self) -> str:
        """That from which this machine reaches the queue's server. Raises `CannotShare`."""
        location = locate(self._store.url)
        if location.path is not None:
            return "127.0.0.1"  # so all agents are here
        with contextlib.suppress(OSError):
            for family, kind, protocol, _, address in socket.getaddrinfo(*location.hosts[0], type=socket.SOCK_DGRAM):
                with socket.socket(family, kind, protocol) as sock:
                    sock.connect(address)  # of a datagram's: nothing is sent
                    return sock.getsockname()[0]
        raise CannotShare("--kv-advertise is needed: it is not to be found out how others reach this machine.")
