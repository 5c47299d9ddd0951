"""`paddler balancer`: the composition root of the process that speaks HTTP."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import ssl
from pathlib import Path
from typing import Any

import rich_click as click
import uvloop
from msgspec import Struct

from api.body import IMAGES
from api.cors import allow_origins
from api.exposure import FLAGS, Exposed, guard_exposed
from api.hosts import guard_hosts
from api.inference.app import create_inference_app
from api.keepalive import Keepalive
from api.management.app import create_management_app
from api.openai.app import create_openai_app
from api.panel.app import Panel
from api.panel.objects import ServiceObject
from api.panel.serving import create_panel
from api.panel.settings import limits_of
from api.ready import Readiness
from api.remote_images import RemoteImages
from api.services import Service, run_services
from api.sockets import AddressError, bind, url_of
from api.telemetry import Telemetry, TelemetrySettings, telemetry_options, telemetry_settings
from api.tls import ServingTls
from api.web_sockets import WebSockets
from paddler import logs
from paddler.batches.options import balancer_file_options, contents_of
from paddler.batches.quota import NO_QUOTA, Quota, default_quota
from paddler.batches.shelf import Shelf, new_shelf
from paddler.clock import SystemClock
from paddler.cors_options import INFERENCE_CORS, MANAGEMENT_CORS, cors_options
from paddler.desired.database import MEMORY, FileKeeper, StateDatabase, state_database_option
from paddler.entrance import EXIT_CONFIG, Entrance, Incompatible
from paddler.host_options import host_options
from paddler.image_hosts import ImageHost, image_hosts_option
from paddler.jobs.gateway import Gateway, GatewaySettings
from paddler.jobs.responses import StorageSettings
from paddler.panel_options import PANEL_ADDR, panel_address, panel_options, panel_origins
from paddler.presence import Presence
from paddler.settings import (
    ADDRESS,
    REDIS_URL,
    Address,
    admission_options,
    aws_options,
    insecure_option,
    log_options,
    option,
    redis_options,
    sharing_options,
    storage_options,
    waiting_options,
)
from paddler.store.client import Store, connect
from paddler.tenants.keys import ApiKeys
from paddler.tenants.ring import KeyRing
from paddler.tenants.watch import TenantWatch
from paddler.tls_options import TlsFiles, tls_files, tls_options


class BalancerSettings(Struct, frozen=True, kw_only=True):
    """`max_body` is bytes; a service without an address is not started."""

    inference_addr: Address
    management_addr: Address
    compat_openai_addr: Address | None
    web_admin_panel_addr: Address | None = None
    max_body: int
    redis_url: str
    redis_prefix: str
    gateway: GatewaySettings
    file_store: str
    max_file: int
    max_stored: int
    quota: Quota = NO_QUOTA
    is_insecure: bool = False
    keepalive: Keepalive = Keepalive.COMMENTS
    state_database: StateDatabase = MEMORY
    management_cors: tuple[str, ...] = ()
    inference_cors: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    image_hosts: tuple[ImageHost, ...] = ()
    agent_redis_url: str | None = None
    tls: TlsFiles | None = None
    telemetry: TelemetrySettings = TelemetrySettings()


@click.command()
@option(
    "--inference-addr",
    type=ADDRESS,
    default="127.0.0.1:8061",
    help="Where clients send their requests.",
)
@option(
    "--management-addr",
    type=ADDRESS,
    default="127.0.0.1:8060",
    help="Where operators look after the fleet; keep it off public networks.",
)
@option(
    "--compat-openai-addr",
    type=ADDRESS,
    default=None,
    help="Start a service with the OpenAI and Anthropic routes alone, upstream's is 127.0.0.1:8070.",
)
@panel_options
@aws_options
@tls_options
@cors_options
@host_options
@image_hosts_option
@waiting_options
@option(
    "--max-body",
    type=click.IntRange(min=1),
    default=32 * 1024 * 1024,
    help="Largest request body in bytes; a larger one is answered with 413.",
)
@option(
    "--sse-keepalive",
    type=click.Choice([one.value for one in Keepalive]),
    default=Keepalive.COMMENTS.value,
    help="What a stream that waits says, after a second and then every 15: comments with its position, empty deltas or "
    "nothing. X-SSE-Keepalive of a request comes first.",
)
@admission_options
@option(
    "--cancel-on-stop",
    is_flag=True,
    help="Cancel the requests of this balancer's clients when it stops, where there is no other to resume them at.",
)
@insecure_option
@sharing_options
@storage_options
@balancer_file_options
@state_database_option
@telemetry_options
@redis_options
@option(
    "--agent-redis-url",
    type=REDIS_URL,
    help="Where agents find Redis that ask at --management-addr with a key of scope `agent`, and what the panel's "
    "command to add one says; by default --redis-url without its files.",
)
@log_options
def command(
    *,
    inference_addr: Address,
    management_addr: Address,
    compat_openai_addr: Address | None,
    web_admin_panel_addr: Address | None,
    management_dashboard_enable: bool,
    management_cors_allowed_host: tuple[str, ...],
    inference_cors_allowed_host: tuple[str, ...],
    allowed_host: tuple[str, ...],
    allow_image_hosts: tuple[ImageHost, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    buffered_request_timeout: int,
    max_buffered_requests: int,
    inference_item_timeout: int,
    max_estimated_wait: int,
    tenant_share: float,
    max_batch_requests: int,
    cancel_on_stop: bool,
    insecure: bool,
    share_prefix_cache: bool,
    response_ttl: int,
    max_stored_responses: int,
    max_stored_bytes: int,
    file_store: str,
    max_file: int,
    max_stored: int,
    tenant_file_bytes: int | None,
    tenant_open_batches: int | None,
    tenant_batch_lines: int | None,
    state_database: StateDatabase,
    max_body: int,
    sse_keepalive: str,
    redis_url: str,
    redis_prefix: str,
    agent_redis_url: str | None,
    log_level: str,
    log_format: str,
    **telemetry: Any,
) -> None:
    """Serve HTTP: turn calls into requests in Redis and stream the answers.

    Any number of balancers may share one Redis; none holds state that another cannot pick up.
    """
    logs.configure("balancer", log_level, log_format)
    panel_addr = panel_address(web_admin_panel_addr, is_dashboard_enabled=management_dashboard_enable)
    panels = panel_origins(panel_addr, is_tls=tls_cert is not None)
    settings = BalancerSettings(
        inference_addr=inference_addr,
        management_addr=management_addr,
        compat_openai_addr=compat_openai_addr,
        web_admin_panel_addr=panel_addr,
        max_body=max_body,
        redis_url=redis_url,
        redis_prefix=redis_prefix,
        gateway=GatewaySettings(
            max_buffered_requests=max_buffered_requests,
            buffered_request_timeout_ms=buffered_request_timeout,
            inference_item_timeout_ms=inference_item_timeout,
            max_estimated_wait_ms=max_estimated_wait,
            tenant_share=tenant_share,
            max_batch_requests=max_batch_requests,
            cancel_on_stop=cancel_on_stop,
            shares_prefix_cache=share_prefix_cache,
            storage=StorageSettings(
                ttl_s=math.ceil(response_ttl / 1000), max_num=max_stored_responses, max_bytes=max_stored_bytes
            ),
        ),
        keepalive=Keepalive(sse_keepalive),
        file_store=file_store,
        max_file=max_file,
        max_stored=max_stored,
        quota=default_quota(
            file_bytes=tenant_file_bytes, open_batches=tenant_open_batches, batch_lines=tenant_batch_lines
        ),
        state_database=state_database,
        management_cors=(*management_cors_allowed_host, *panels),
        inference_cors=(*inference_cors_allowed_host, *panels),
        allowed_hosts=allowed_host,
        image_hosts=allow_image_hosts,
        agent_redis_url=agent_redis_url,
        is_insecure=insecure,
        tls=tls_files(tls_cert, tls_key, tls_client_ca, SystemClock().wall()),
        telemetry=telemetry_settings(os.environ, **telemetry),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            code = runner.run(serve(settings))
        except (AddressError, Exposed) as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(2) from None
        except Incompatible as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(EXIT_CONFIG) from None
    raise SystemExit(code)


async def serve(settings: BalancerSettings) -> int:
    """Serve until a stop signal, or until the gateway fails. Returns the exit code. Raises `AddressError` before
    anything starts when an address cannot be bound, and `Exposed`; `Incompatible`, also later.

    Redis need not be there: requests are answered with 503 until it is.
    """
    clock = SystemClock()
    store = connect(settings.redis_url, settings.redis_prefix)
    telemetry = Telemetry(settings.telemetry, store, clock)
    gateway = Gateway(store, settings.gateway, clock, telemetry.meters)
    contents = contents_of(store, settings.file_store, clock)
    bounds = {"max_file": settings.max_file, "max_stored": settings.max_stored}
    shelf = new_shelf(store, contents, clock, quota=settings.quota, **bounds)
    tenants = TenantWatch(store, clock)
    tls = ServingTls(settings.tls, clock) if settings.tls else None
    context = tls.context if tls else None
    services = _services(settings, store, gateway, clock, shelf, telemetry, tenants.ring, context)
    panel: Panel | None = None
    if (address := settings.web_admin_panel_addr) is not None:
        listener = bind(PANEL_ADDR, address)
        shown = [
            ServiceObject(name=name, flag=FLAGS[name], url=url_of(one, is_tls=context is not None))
            for name, one in [*((service.name, service.listener) for service in services), ("panel", listener)]
        ]
        panel = create_panel(
            store,
            gateway,
            clock,
            settings.max_body,
            shelf,
            settings.keepalive,
            telemetry.metrics,
            limits=limits_of(
                settings.gateway,
                max_body=settings.max_body,
                max_file=settings.max_file,
                max_stored=settings.max_stored,
                quota=settings.quota,
            ),
            services=shown,
            ring=tenants.ring,
            hosts=settings.allowed_hosts,
            own_host=address.host,
            listener=listener,
            is_tls=context is not None,
            agent_redis_url=settings.agent_redis_url,
            shares_prefix_cache=settings.gateway.shares_prefix_cache,
        )
        services.append(Service("panel", telemetry.observe(panel.app, "panel"), listener, None, context))
    entrance = Entrance(store, clock)
    await entrance.first_look()
    if not settings.is_insecure:
        await guard_exposed(services, tenants.ring, ApiKeys(store, clock), store)
    await tenants.start()
    await gateway.start()
    telemetry.start()
    if panel is not None:
        panel.start()
    if (path := settings.state_database.path) is not None:
        gateway.supervise(FileKeeper(store, path, clock).keep_loop())
    gateway.supervise(entrance.watch_loop())
    _shorten_gc_pauses()
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(Presence(store, clock, "balancer").run())]
    if tls:
        tasks.append(asyncio.create_task(tls.watch_loop()))
    try:
        on_hangup = tls.reload if tls else None
        await run_services(services, on_stop=gateway.stop_accepting, failed=gateway.failed, on_hangup=on_hangup)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if panel is not None:
            await panel.close()
        await tenants.close()
        await gateway.close()
        await telemetry.close()
        await store.close()
    if entrance.refusal is not None:
        raise entrance.refusal
    return int(gateway.failed.is_set())


def _shorten_gc_pauses() -> None:
    """A full collection looks at every object while no stream moves: with 8,000 requests waiting the longest pause was
    600 ms, with this 16 ms. What exists now lives as long as the process and is not looked at again; the rest comes
    after a million new objects, where Python's own threshold is 70,000."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 50)


def _services(
    settings: BalancerSettings,
    store: Store,
    gateway: Gateway,
    clock: SystemClock,
    shelf: Shelf,
    telemetry: Telemetry,
    ring: KeyRing,
    tls: ssl.SSLContext | None,
) -> list[Service]:
    """One service for each address, management first, as its address says that the balancer is up."""
    stopping = gateway.stopping
    images = RemoteImages(settings.image_hosts, settings.max_body) if settings.image_hosts else None
    shared: dict[str, Any] = {"ring": ring, "readiness": Readiness(store, stopping, clock)}
    management = create_management_app(
        store,
        stopping,
        clock,
        settings.max_body,
        telemetry.metrics,
        agent_redis_url=settings.agent_redis_url,
        shares_prefix_cache=settings.gateway.shares_prefix_cache,
        **shared,
    )
    apps = [
        ("management", "--management-addr", settings.management_addr, management),
        (
            "inference",
            "--inference-addr",
            settings.inference_addr,
            create_inference_app(gateway, clock, settings.max_body, shelf, settings.keepalive, **shared),
        ),
    ]
    if settings.compat_openai_addr is not None:
        app = create_openai_app(gateway, clock, settings.max_body, shelf, settings.keepalive, **shared)
        apps.append(("openai", "--compat-openai-addr", settings.compat_openai_addr, app))
    sockets = {"inference": WebSockets(settings.max_body)}
    services: list[Service] = []
    for name, flag, address, app in apps:
        if name == "management":
            allow_origins(app, settings.management_cors, flag=MANAGEMENT_CORS, guards_changes=True)
        else:
            allow_origins(app, settings.inference_cors, flag=INFERENCE_CORS)
            if images is not None:
                app.state[IMAGES] = images
        listener = bind(flag, address)
        guard_hosts(app, listener, settings.allowed_hosts, ring=ring, own=address.host, is_native=name == "inference")
        services.append(Service(name, telemetry.observe(app, name), listener, sockets.get(name), tls))
    return services
