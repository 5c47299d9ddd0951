"""How a server is: looked at in an interval, and told at once by the requests that find it otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from msgspec import Struct

from paddler.clock import Clock
from paddler.engine import ModelError
from paddler.issues import Issue, issue_of
from paddler.logs import get_logger
from workers.agent.upstream.client import UpstreamClient
from workers.agent.upstream.server import Server
from workers.agent.upstream.trouble import Broken, Busy, EndpointOff, KeyRefused, Refused, Unreachable, UpstreamTrouble

log = get_logger(__name__)

AGAIN_S = 1.0
"""Between two looks at a server that does not serve."""
SECOND_LOOK_S = 0.5
"""After this it is looked again whether somebody else is there: our own may be over there a moment later than here."""
PATHS = ("/health", "/v1/models")


class Condition(Struct, frozen=True):
    """`num_slots` of the agent's may be used now; `issues` says why they are fewer, where somebody can do something
    about it."""

    num_slots: int
    issues: tuple[Issue, ...] = ()


class Watch:
    """`num_ours` tells how many requests of this agent are at the server, `probe` raises what keeps it from serving."""

    def __init__(
        self,
        client: UpstreamClient,
        server: Server,
        clock: Clock,
        *,
        slots: int,
        interval_s: float,
        num_ours: Callable[[], int],
        probe: Callable[[], Awaitable[object]],
    ) -> None:
        self._probe = probe
        self._client = client
        self._server = server
        self._slots = slots
        self._interval_s = interval_s
        self._clock = clock
        self._num_ours = num_ours
        self._trouble: UpstreamTrouble | None = None
        self._num_foreign = 0
        self._not_before = 0.0
        self._has_slots_route = server.has_slots
        self._woken = asyncio.Event()

    def failed(self, trouble: UpstreamTrouble) -> None:
        """A request has met this. What is only about that request changes nothing."""
        match trouble:
            case Unreachable() | KeyRefused() | EndpointOff():
                self._set(trouble)
            case Busy(retry_after_s=seconds):
                self._not_before = max(self._not_before, self._clock.monotonic() + seconds)
            case _:
                return
        self._woken.set()

    async def run(self) -> NoReturn:
        while True:
            self._woken.clear()
            try:
                async with asyncio.timeout(self._wait_s()):
                    await self._woken.wait()
            except TimeoutError:
                await self.run_look_once()

    async def run_look_once(self) -> None:
        try:
            self._client.read_key()
            if self._trouble is not None:
                # Health is public where the rest wants a key, and says nothing of a route or a model that is gone.
                await self._probe()
            await self._look()
        except ModelError as error:
            self._set(EndpointOff(str(error)))
        except Broken as trouble:
            self._set(Unreachable(f"{self._client.url} does not answer as a server does: {trouble.brief}"))
        except Busy as trouble:
            self._set(Unreachable(f"{self._client.url} cannot serve yet: {trouble.brief}"))
        except UpstreamTrouble as trouble:
            self._set(trouble)
        else:
            self._set(None)

    async def _look(self) -> None:
        if self._has_slots_route:
            try:
                await self._count_slots()
                return
            except (EndpointOff, Refused):
                log.warning("the server shows its slots no longer; it is watched by /health", url=self._client.url)
                self._has_slots_route, self._num_foreign = False, 0
        for path in PATHS:
            try:
                await self._client.get(path)
                return
            except (EndpointOff, Refused):
                continue
        # It answers, if only that it offers neither.

    async def _count_slots(self) -> None:
        num_foreign = await self._foreign()
        if num_foreign > self._num_foreign:
            await self._clock.sleep(SECOND_LOOK_S)
            num_foreign = min(num_foreign, await self._foreign())
        if num_foreign != self._num_foreign:
            log.info("slots of the server that others use", url=self._client.url, slots=num_foreign)
        self._num_foreign = num_foreign

    async def _foreign(self) -> int:
        before = self._num_ours()
        slots: Any = await self._client.get("/slots")
        if not isinstance(slots, list):
            raise Broken("/slots lists no slots")
        busy = sum(1 for slot in slots if isinstance(slot, dict) and slot.get("is_processing"))  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return max(busy - max(before, self._num_ours()), 0)

    def _wait_s(self) -> float:
        now = self._clock.monotonic()
        if self._not_before > now:
            return min(self._not_before - now, self._interval_s)
        return min(AGAIN_S, self._interval_s) if self._trouble is not None else self._interval_s

    def _set(self, trouble: UpstreamTrouble | None) -> None:
        if trouble is not None and type(trouble) is not type(self._trouble):
            log.error("the server takes no requests", **issue_fields(issue_for(trouble, self._client.url)))
        elif trouble is None and self._trouble is not None:
            log.info("the server takes requests again", url=self._client.url)
        self._trouble = trouble

    @property
    def condition(self) -> Condition:
        """As it is now; from any thread."""
        issues: list[Issue] = []
        num = self._slots
        if self._server.num_slots is not None:
            num = min(num, self._server.num_slots - self._num_foreign)
        if (trouble := self._trouble) is not None:
            num = 0
            issues.append(issue_for(trouble, self._client.url))
        elif self._not_before > self._clock.monotonic():
            num = min(num, self._num_ours())
        if trouble is None and self._server.dialect.name == "llama.cpp" and not self._has_slots_route:
            issues.append(slots_off(self._client.url))
        return Condition(max(num, 0), tuple(issues))


def issue_for(trouble: UpstreamTrouble, url: str) -> Issue:
    match trouble:
        case KeyRefused():
            kind = "UpstreamKeyRefused"
        case EndpointOff():
            kind = "UpstreamEndpointOff"
        case _:
            kind = "UpstreamUnreachable"
    return issue_of(kind, trouble.brief, url, waits=True)


def slots_off(url: str) -> Issue:
    """An issue that keeps nobody from serving."""
    issue = issue_of("UpstreamEndpointOff", f"{url} is a llama-server that does not show its slots", url, waits=True)
    return Issue(
        kind=issue.kind,
        detail=issue.detail,
        model_path=url,
        action="The agent serves, watches the server by /health, and does not see which slots others use.",
        remedy="Start llama-server with its slots endpoint, or let nobody else use it.",
    )


def issue_fields(issue: Issue) -> dict[str, str]:
    return {"kind": issue.kind, "detail": issue.detail, "action": issue.action, "remedy": issue.remedy}
