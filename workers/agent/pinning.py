"""Keeping the pool's pinned prefixes at hand, each as a job of the agent's own. See "Pinned prefixes" in DESIGN.md.

1. **Look**: what is pinned is followed in Redis; what is no longer is unpinned in the engine.
2. **Count**: which tokens all conversations have in common that begin so (`pin_probes.py`), asked of the engine.
3. **Turn**: where agents share their tiers one computes it, the others wait and then find it there.
4. **Compute**: a job without output that gives way to all others, until it is resident.
5. **Tell**: how it stands, with the lease; and how many requests began with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing

import msgspec

from paddler.clock import Clock
from paddler.engine import Done, Event, Job, Pinned, Preempted, Rejected, Retained
from paddler.ids import new_process_id
from paddler.logs import get_logger
from paddler.prefixes.records import Prefix, encode_held
from paddler.prefixes.store import Prefixes
from paddler.store.client import TROUBLE
from paddler.wire.agent import CountTokens, Generate, Payload, Sampling
from paddler.wire.answers import Tokenized, decode_answer
from paddler.wire.balancer import FinishReason
from workers.agent.engine_thread import EngineThread
from workers.agent.pin_hits import Hits
from workers.agent.pin_probes import common, probes
from workers.agent.pinned_prefix import AGAIN_S, Kept

log = get_logger(__name__)

SHARE = 2
"""Pinned prefixes take a half of the context at most: conversations need the rest."""
WAKE_S = 1.0
"""Hits are written as often, and what is to be tried again is looked for."""
RECOUNT_S = 3600.0
"""Templates write the date: so often it is looked whether a prefix is still made of the same tokens."""
TURN_MS = 10_000
"""A prefix that nobody renews the turn of is computed by the next."""
FLUSH_S = 5.0
"""A tier that takes longer is not waited for."""
SHARED_TIERS = ("shared", "peer")
OWN_TIERS = ("disk", *SHARED_TIERS)
ENDS = Done | Rejected | Preempted


class Refused(Exception):
    """It cannot be pinned here, whatever is waited for."""


class GaveWay(Exception):
    """Others needed the slot; later."""


class Pinning:
    """Of one engine. `take` sees its events first; `run_follow_once` and `run_keep_once` are its loops."""

    def __init__(self, prefixes: Prefixes, pool: str, engine: EngineThread, clock: Clock) -> None:
        self._prefixes = prefixes
        self._pool = pool
        self._engine = engine
        self._clock = clock
        self._who = new_process_id("pin")
        self._kept: dict[str, Kept] = {}
        self._wanted: tuple[Prefix, ...] = ()
        self._changed = asyncio.Event()
        self._ends: dict[str, asyncio.Future[Event]] = {}
        """Of jobs that have not ended, whether or not anybody waits for it still."""
        self._ours: set[str] = set()
        self._hits = Hits(prefixes, pool)
        self._number = 0
        self._told = False
        """The agent's hash says of some, and has to say when there are none any more."""
        engine.on_template = self._recount

    # What the loop tells it

    def take(self, events: list[Event]) -> list[Event]:
        """Hear all events of the engine; returns those that are of requests."""
        others: list[Event] = []
        for event in events:
            if event.request_id in self._ours:
                self._hear(event)
                continue
            self._hits.saw(event)
            others.append(event)
        # Not before: with its end a job tells what of it stays, which is no loss.
        for event in events:
            if isinstance(event, ENDS) and self._ends.pop(event.request_id, None) is not None:
                self._changed.set()
        return others

    def began(self, request_id: str, payload: Payload) -> None:
        """A request starts: if it is a hit, that is counted when it ends."""
        self._hits.began(request_id, payload, self._kept.values())

    def fields(self) -> Mapping[str, bytes]:
        """Of the agent's hash; nothing before anything was pinned."""
        if not self._kept and not self._told:
            return {}
        self._told = True
        standing, is_running = self._standing, self._engine.is_giving_way
        held = [one.held(standing, is_computing=is_running(one.request_id)) for one in self._kept.values()]
        return {"pinned": encode_held(held)}

    # Steps

    async def run_follow_once(self) -> None:
        """Follow what is pinned, for ever."""
        async with aclosing(self._prefixes.changes(self._pool)) as changes:
            async for found in changes:
                self._wanted = found
                self._changed.set()
                for one in self._kept.values():
                    if one.is_under_way and one.prefix not in found:
                        self._engine.cancel(one.request_id)

    async def preload(self, timeout_s: float) -> None:
        """Before it takes requests, what its tiers give within this time; nothing without tiers."""
        if not self._has_tiers(OWN_TIERS):
            return
        with contextlib.suppress(TimeoutError, msgspec.MsgspecError, *TROUBLE):
            async with asyncio.timeout(timeout_s):
                self._wanted = await self._prefixes.read(self._pool)
                while await self._keep_next():
                    pass

    async def run_keep_once(self) -> None:
        """Wait for a change, or for the time of another try, and make one prefix resident. Raises what Redis raises."""
        if self._next() is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAKE_S):
                    await self._changed.wait()
        self._changed.clear()
        await self._hits.write_once(self._kept.keys())
        await self._keep_next()

    async def _keep_next(self) -> bool:
        """False: there is nothing to do."""
        self._match()
        one = self._next()
        if one is not None:
            await self._keep(one)
        return one is not None

    def _match(self) -> None:
        """Step 1."""
        wanted = {prefix.name: prefix for prefix in self._wanted}
        for name, one in list(self._kept.items()):
            if wanted.get(name) != one.prefix and not self._is_ending(one):
                del self._kept[name]
                if name in wanted and wanted[name].tenant == one.prefix.tenant:
                    self._kept[name] = Kept(wanted[name], former=one.request_ids)
                else:
                    self._unpin(one.request_ids)
                log.info("a prefix is not pinned any more", prefix=name, version=one.prefix.version)
        for name, prefix in wanted.items():
            if name not in self._kept:
                self._kept[name] = Kept(prefix)

    def _next(self) -> Kept | None:
        """What is to be made resident, or counted again, now: the longest pinned first."""
        if self._engine.engine.pinned is None:
            for one in self._kept.values():
                one.refusal = "this agent's engine keeps nothing that has ended"
            return None
        now, standing = self._clock.monotonic(), self._standing
        for one in sorted(self._kept.values(), key=lambda one: one.prefix.version):
            if one.refusal or now < one.try_at or self._is_ending(one):
                continue
            if not one.is_resident(standing) or now >= one.counted_at + RECOUNT_S:
                return one
        return None

    async def _keep(self, one: Kept) -> None:
        """Steps 2 to 4."""
        one.is_under_way = True
        try:
            await self._make_resident(one)
        except Refused as error:
            one.refusal = str(error)
            self._unpin(one.request_ids)
            one.former, one.older, one.request_id = [], [], ""
            log.warning("a prefix cannot be pinned", prefix=one.prefix.name, error=one.refusal)
        except GaveWay:
            one.try_at = self._clock.monotonic() + AGAIN_S
        finally:
            one.is_under_way = False

    async def _make_resident(self, one: Kept) -> None:
        if one.content is None:
            try:
                one.content = await self._prefixes.content(self._pool, one.prefix)
            except msgspec.MsgspecError as error:
                raise Refused(f"this version of Paddler cannot read it: {error}") from None
            if one.content is None:
                raise GaveWay
        now = self._clock.monotonic()
        if one.tokens is None or now >= one.counted_at + RECOUNT_S:
            tokens = await self._tokens(one.content)
            is_there = tokens == one.tokens and one.is_resident(self._standing)
            one.tokens, one.counted_at = tokens, now
            if is_there:
                return
        self._check_room(one, one.tokens)
        if not self._has_tiers(SHARED_TIERS):
            await self._compute(one, one.tokens)
            return
        async with self._turn(one) as is_ours:
            if not is_ours:
                raise GaveWay
            await self._compute(one, one.tokens)
            # Who waits for the turn is to find it.
            await asyncio.to_thread(self._engine.engine.flush_states, FLUSH_S)

    async def _tokens(self, content: Generate) -> tuple[int, ...]:
        found: list[tuple[int, ...]] = []
        for request in probes(content):
            end = await self._run(CountTokens(request=request, with_tokens=True))
            answer = decode_answer(end.answer)
            assert isinstance(answer, Tokenized)
            found.append(answer.tokens)
        return common(found)

    def _check_room(self, one: Kept, tokens: tuple[int, ...]) -> None:
        """Raises `Refused`."""
        room = self._engine.engine.info.context_size // SHARE
        older = [other for other in self._kept.values() if other.prefix.version < one.prefix.version]
        taken = sum(other.num_tokens for other in older if not other.refusal)
        if len(tokens) + taken > room:
            others = f", of which others take {taken}" if taken else ""
            raise Refused(
                f"it has {len(tokens)} tokens, and pinned prefixes get {room} of this agent's context{others}: pin "
                "less, or give the agent a larger --context-size"
            )
        if not tokens:
            raise Refused("no two conversations that begin so have a token in common in this model's chat template")

    async def _compute(self, one: Kept, tokens: tuple[int, ...]) -> None:
        """Step 4."""
        payload = Generate(
            prompt_ids=tokens, max_tokens=1, cache_scope=one.scope, sampling=Sampling(temperature=0), stop=()
        )
        # What earlier tries have computed stays until this one shares it; the last of them has all of it.
        there = [request_id for request_id in (*one.older, one.request_id) if request_id in self._standing]
        self._unpin(there[:-1])
        one.older, one.request_id = there[-1:], self._new_id()
        began = self._clock.monotonic()
        await self._run(payload, one.request_id)
        self._unpin([*one.former, *one.older])
        one.former, one.older = [], []
        took_s = self._clock.monotonic() - began
        log.info("a prefix is resident", prefix=one.prefix.name, tokens=len(tokens), seconds=round(took_s, 2))

    async def _run(self, payload: Payload, request_id: str = "") -> Done:
        """A job of our own. Raises `GaveWay` and `Refused`."""
        request_id = request_id or self._new_id()
        self._ours.add(request_id)
        end: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._ends[request_id] = end
        try:
            self._engine.start(Job(request_id=request_id, payload=payload, is_pinned=True))
            event = await end
        except asyncio.CancelledError:
            self._engine.cancel(request_id)
            raise
        finally:
            if not isinstance(payload, Generate):
                self._ours.discard(request_id)
        if isinstance(event, Rejected):
            if event.status >= 500:
                raise GaveWay
            raise Refused(event.message)
        if not isinstance(event, Done) or event.reason is FinishReason.CANCELLED:
            raise GaveWay
        return event

    @contextlib.asynccontextmanager
    async def _turn(self, one: Kept) -> AsyncGenerator[bool]:
        """Step 3: whether it is ours."""
        name = one.prefix.name
        is_ours = await self._prefixes.take_turn(self._pool, name, self._who, lease_ms=TURN_MS)
        renewing = asyncio.create_task(self._renew_turn(name)) if is_ours else None
        try:
            yield is_ours
        finally:
            if renewing is not None:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
                await self._prefixes.take_turn(self._pool, name, self._who, lease_ms=0)

    async def _renew_turn(self, name: str) -> None:
        while True:
            await self._clock.sleep(TURN_MS / 4000)
            with contextlib.suppress(*TROUBLE):
                await self._prefixes.take_turn(self._pool, name, self._who, lease_ms=TURN_MS)

    def _hear(self, event: Event) -> None:
        if isinstance(event, ENDS):
            if (end := self._ends.get(event.request_id)) is not None and not end.done():
                end.set_result(event)
        elif isinstance(event, Retained) and event.request_id not in self._ends:
            # Running requests took its place, or it was unpinned.
            for one in self._kept.values():
                if one.request_id == event.request_id and not one.is_resident(self._standing):
                    one.lost(self._clock.monotonic())

    def _is_ending(self, one: Kept) -> bool:
        """Its job was cancelled, and what that leaves is not known yet."""
        return one.request_id in self._ends

    @property
    def _standing(self) -> Mapping[str, Pinned]:
        return {one.request_id: one for one in self._engine.engine.pinned or ()}

    def _has_tiers(self, names: Collection[str]) -> bool:
        return any(one.tier in names for one in self._engine.engine.tiers)

    def _unpin(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            self._engine.unpin(request_id)
            self._ours.discard(request_id)

    def _recount(self) -> None:
        """Prompts are made with another template from now on."""
        for one in self._kept.values():
            one.tokens, one.refusal, one.try_at = None, "", 0.0
        self._changed.set()

    def _new_id(self) -> str:
        self._number += 1
        return f"{self._who}.{self._number}"
