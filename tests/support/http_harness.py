"""A balancer in the test's own event loop on real sockets, and an agent whose every step the test takes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
from anthropic import AsyncAnthropic
from litestar import Litestar
from litestar.types import Receive, Send
from litestar.types import Scope as Asked
from openai import AsyncOpenAI, OpenAI

from api.body import IMAGES
from api.cors import allow_origins
from api.hosts import guard_hosts
from api.inference.app import create_inference_app
from api.keepalive import Keepalive
from api.management.app import create_management_app
from api.openai.app import create_openai_app
from api.panel.app import Panel
from api.panel.pages import Pages
from api.panel.serving import create_panel
from api.remote_images import RemoteImages
from api.services import Service
from api.sockets import bind, bound_address
from api.telemetry import Telemetry, TelemetrySettings
from api.web_sockets import WebSockets
from paddler.batches.contents import RedisContents
from paddler.batches.folder import FolderContents
from paddler.batches.quota import NO_QUOTA, Quota
from paddler.batches.shelf import new_shelf
from paddler.clock import SystemClock
from paddler.errors import PaddlerError, frame_of
from paddler.ids import new_process_id
from paddler.image_hosts import ImageHost
from paddler.jobs.gateway import Gateway, GatewaySettings
from paddler.settings import Address
from paddler.store.client import Store, connect
from paddler.store.scripts import Disposition, Emission, Outcome
from paddler.tenants.keys import ApiKeys, NewKey
from paddler.tenants.records import Limits, Scope
from paddler.tenants.watch import TenantWatch
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Payload, decode_payload
from paddler.wire.balancer import Finished, FinishReason, Frame, Opened, Tokens, Usage, encode_frame

MAX_BODY = 64 * 1024
MAX_FILE = 4 * 1024 * 1024
TLS = ssl.create_default_context()
"""Of clients that never use it: each would read all the authorities of this machine for one of its own, 20 ms."""
USAGE = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=1)
STOPPED = encode_frame(Finished(FinishReason.CANCELLED))


class HandRequest:
    """A request that a `HandAgent` has begun."""

    def __init__(self, agent: HandAgent, request_id: str, attempt: int, payload: Payload, offset: int) -> None:
        self.request_id = request_id
        self.payload = payload
        self._agent = agent
        self._attempt = attempt
        self._offset = offset

    @property
    def asked(self) -> Generate:
        """What to generate."""
        assert isinstance(self.payload, Generate)
        return self.payload

    async def say(self, text: str) -> None:
        await self.emit(Tokens((1,), text))

    async def emit(self, frame: Frame) -> None:
        (placed,) = await self._agent.pool.emit(self._agent.agent_id, [self._emission(frame)])
        assert placed.disposition is Disposition.OK
        self._offset = placed.length

    async def finish(self, reason: FinishReason = FinishReason.STOP, usage: Usage = USAGE) -> None:
        outcome = Outcome.CANCELLED if reason is FinishReason.CANCELLED else Outcome.DONE
        await self._settle(Finished(reason, usage), outcome, usage)

    async def fail(self, error: PaddlerError) -> None:
        await self._settle(frame_of(error), Outcome.FAILED)

    async def cancelled(self) -> None:
        """Wait until the balancer has asked to stop, then stop."""

        async def is_asked() -> bool:
            renewed = await self._agent.pool.renew(self._agent.agent_id, lease_ms=60_000)
            return self.request_id in renewed.cancelled

        await wait_until(is_asked, timeout_s=3, what="the request is cancelled")
        await self.finish(FinishReason.CANCELLED)

    async def _settle(self, frame: Frame, outcome: Outcome, usage: Usage = USAGE) -> None:
        placed = await self._agent.pool.settle(self._agent.agent_id, self._emission(frame), outcome, usage)
        assert placed.disposition is Disposition.OK

    def _emission(self, frame: Frame) -> Emission:
        return Emission(self.request_id, self._attempt, self._offset, encode_frame(frame))


class HandAgent:
    """An agent without engine and loops: the real scripts, called when the test says so."""

    def __init__(
        self, store: Store, pool: str = "default", slots: int = 1, abilities: str = "", state: str = "ready"
    ) -> None:
        self.agent_id = new_process_id("agent")
        self.pool = store.pool(pool)
        self.slots = slots
        self.state = state
        self.abilities = {"abilities": abilities} if abilities else {}

    async def register(self, model: str = "tiny") -> None:
        snapshot = {"slots": self.slots, "state": self.state, "name": "hand", **self.abilities}
        await self.pool.register(self.agent_id, lease_ms=60_000, model=model, seen_s=1_700_000_000, snapshot=snapshot)

    async def take(self) -> HandRequest:
        """Wait for the next ticket and begin it."""
        lane = self.pool.keys.lane(self.agent_id)
        found: Any = await wait_until(
            lambda: self.pool.redis.xreadgroup("agent", self.agent_id, {lane: ">"}, count=1), what="a ticket arrives"
        )
        ((_, ((_, fields),)),) = found
        request_id, attempt = fields[b"id"].decode(), int(fields[b"attempt"])
        opened = await self.pool.open(self.agent_id, request_id, attempt, encode_frame(Opened("hand", attempt)))
        assert opened.disposition is Disposition.OK
        return HandRequest(self, request_id, attempt, decode_payload(opened.payload), len(opened.journal))

    async def leave(self) -> None:
        await self.pool.reap(self.agent_id, max_deaths=3, dead_frame=b"", cancel_frame=STOPPED, is_leaving=True)


class HttpBalancer:
    """All services of one balancer process, and clients for them."""

    def __init__(self, store: Store, gateway: Gateway, services: dict[str, Service], tenants: TenantWatch) -> None:
        self.store = store
        self.gateway = gateway
        self.tenants = tenants
        self._services = services

    def url(self, service: str = "inference") -> str:
        return bound_address(self._services[service].listener).url

    def service(self, service: str = "inference") -> Service:
        return self._services[service]

    def http(self, service: str = "inference", key: str | None = None) -> httpx.AsyncClient:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url(service), timeout=20, trust_env=False, headers=headers, verify=TLS)

    async def new_key(self, name: str, *scopes: Scope, expires_ms: int | None = None, **limits: Any) -> NewKey:
        """A key that this balancer knows on return; a tenant of its own name."""
        keys = ApiKeys(self.store, SystemClock())
        new = await keys.create(name, scopes=scopes or ("inference",), limits=Limits(**limits), expires_ms=expires_ms)
        await self.tenants.ring.refresh_once()
        return new

    def openai(self, service: str = "inference") -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{self.url(service)}/v1",
            api_key="none",
            max_retries=0,
            timeout=20,
            http_client=openai.DefaultAsyncHttpxClient(verify=TLS),
        )

    def openai_sync(self, service: str = "inference") -> OpenAI:
        return OpenAI(
            base_url=f"{self.url(service)}/v1",
            api_key="none",
            max_retries=0,
            timeout=20,
            http_client=openai.DefaultHttpxClient(verify=TLS),
        )

    def anthropic(self, service: str = "inference") -> AsyncAnthropic:
        return AsyncAnthropic(
            base_url=self.url(service),
            api_key="none",
            max_retries=0,
            timeout=20,
            http_client=anthropic.DefaultAsyncHttpxClient(verify=TLS),
        )

    def num_connections(self, service: str = "inference") -> int:
        return len(self._services[service].server_state.connections)

    def num_tasks(self, service: str = "inference") -> int:
        """HTTP requests that are being worked on."""
        return len(self._services[service].server_state.tasks)

    async def num_waiting(self) -> int:
        pool = self.store.pool("default")
        return await pool.redis.xlen(pool.keys.buffer())

    async def demand(self) -> int:
        pool = self.store.pool("default")
        return await pool.redis.xlen(pool.keys.demand())

    async def is_idle(self) -> bool:
        return await self.demand() == 0


class LateApp:
    """The application of a service, made for the first who asks it: most tests ask one of three, and each takes some
    hundredths of a second."""

    def __init__(self, make: Callable[[], Litestar]) -> None:
        self._make = make
        self._made: Litestar | None = None

    @property
    def made(self) -> Litestar:
        if self._made is None:
            self._made = self._make()
        return self._made

    async def __call__(self, scope: Asked, receive: Receive, send: Send) -> None:
        await self.made(scope, receive, send)


NewBalancer = Callable[..., Awaitable[HttpBalancer]]
NewAgent = Callable[..., Awaitable[HandAgent]]


@asynccontextmanager
async def http_balancer(
    url: str,
    prefix: str,
    *,
    folder: Path | None = None,
    keepalive: Keepalive = Keepalive.COMMENTS,
    cors: tuple[str, ...] = (),
    allowed_hosts: tuple[str, ...] = (),
    image_hosts: tuple[ImageHost, ...] = (),
    quota: Quota = NO_QUOTA,
    web_sockets: WebSockets | None = None,
    telemetry: TelemetrySettings | None = None,
    panel: Path | None = None,
    **settings: Any,
) -> AsyncGenerator[HttpBalancer]:
    """Serve on free ports of the loopback address until the context ends. Files are kept in Redis, or in `folder`.
    `panel` is where its files are; None: it is not served."""
    clock = SystemClock()
    store = connect(url, prefix)
    known: dict[str, Any] = {"cancel_on_stop": True}
    told = Telemetry(telemetry or TelemetrySettings(), store, clock)
    gateway = Gateway(store, GatewaySettings(**known | settings), clock, told.meters)
    contents = RedisContents(store) if folder is None else FolderContents(folder, prefix, clock)
    shelf = new_shelf(store, contents, clock, max_file=MAX_FILE, quota=quota)
    tenants = TenantWatch(store, clock)
    ring, shares = tenants.ring, settings.get("shares_prefix_cache", False)
    apps = {
        "management": partial(
            create_management_app,
            store,
            gateway.stopping,
            clock,
            MAX_BODY,
            told.metrics,
            ring=ring,
            shares_prefix_cache=shares,
        ),
        "inference": partial(create_inference_app, gateway, clock, MAX_BODY, shelf, keepalive, ring=ring),
        "openai": partial(create_openai_app, gateway, clock, MAX_BODY, shelf, keepalive, ring=ring),
    }
    listeners = {name: bind(f"--{name}", Address("127.0.0.1", 0)) for name in apps}

    images = RemoteImages(image_hosts, MAX_BODY) if image_hosts else None

    def make(name: str) -> Litestar:
        app = apps[name]()
        if images is not None and name != "management":
            app.state[IMAGES] = images
        allow_origins(app, cors, flag=f"--{name}-cors-allowed-host", guards_changes=name == "management")
        guard_hosts(app, listeners[name], allowed_hosts, ring=ring, is_native=name == "inference")
        return told.observe(app, name)

    sockets = {"inference": web_sockets or WebSockets(MAX_BODY)}
    services = {name: Service(name, LateApp(partial(make, name)), listeners[name], sockets.get(name)) for name in apps}
    shown: Panel | None = None
    if panel is not None:
        listener = bind("--panel", Address("127.0.0.1", 0))
        shown = create_panel(
            *(store, gateway, clock, MAX_BODY, shelf, keepalive, told.metrics),
            ring=tenants.ring,
            hosts=allowed_hosts,
            listener=listener,
            is_tls=False,
            pages=Pages(panel),
        )
        services["panel"] = Service("panel", told.observe(shown.app, "panel"), listener)
    await tenants.start()
    await gateway.start()
    told.start()
    if shown is not None:
        shown.start()
    tasks = [asyncio.create_task(service.serve([service.listener])) for service in services.values()]
    await wait_until(lambda: all(service.started for service in services.values()), what="services start")
    try:
        yield HttpBalancer(store, gateway, services, tenants)
    finally:
        gateway.stop_accepting()
        for service in services.values():
            service.leave()
        await asyncio.gather(*tasks)
        if shown is not None:
            await shown.close()
        await tenants.close()
        await gateway.close()
        await told.close()
        await store.close()


def chat(content: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat request's body."""
    return {"model": "default", "messages": [{"role": "user", "content": content}], **fields}


async def open_raw(url: str, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a chat request over a socket that the test can read by the byte, and close at any moment."""
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return reader, writer


async def read_events(response: httpx.Response) -> list[str]:
    """All events of a stream, comments included; ids are left out."""
    text = (await response.aread()).decode()
    assert text.endswith("\n\n")
    return [line for line in text.split("\n") if line and not line.startswith("id: ")]
