"""`GET /panel/api/settings`: what this balancer was told, who else runs, and how Redis is."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Sequence

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.management.asking import json_answer
from api.management.view import PATIENCE_S
from api.panel.joining import without_secret
from api.panel.objects import LimitObject, ProcessObject, RedisObject, ServiceObject, SettingsAnswer
from api.panel.operations import SETTINGS
from paddler import __version__
from paddler.batches.quota import NO_QUOTA, Bound, Quota
from paddler.clock import Clock
from paddler.doctor import redis_checks
from paddler.jobs.gateway import GatewaySettings
from paddler.metrics.redis_health import read_redis_health
from paddler.presence import processes
from paddler.store.client import TROUBLE, Store
from paddler.tenants.ring import KeyRing


def settings_route(
    store: Store,
    clock: Clock,
    ring: KeyRing | None,
    limits: Sequence[LimitObject],
    services: Sequence[ServiceObject],
) -> HTTPRouteHandler:
    """`services` is read when somebody asks: it may be filled once they listen."""

    @get("/panel/api/settings", operation=SETTINGS)
    async def get_settings() -> ASGIResponse:
        """It answers without Redis, too, and says so then."""
        redis, running = await asyncio.gather(_redis(store, clock), _processes(store))
        told = SettingsAnswer(
            version=__version__,
            python_version=platform.python_version(),
            host=socket.gethostname(),
            pid=os.getpid(),
            is_key_needed=ring is not None and not ring.is_open,
            services=list(services),
            limits=list(limits),
            redis=redis,
            processes=running,
        )
        return json_answer(told)

    return get_settings


async def _redis(store: Store, clock: Clock) -> RedisObject:
    told = RedisObject(url=without_secret(store.url), prefix=store.prefix, is_reachable=False)
    try:
        async with asyncio.timeout(PATIENCE_S):
            health = await read_redis_health(store, clock)
            findings = [await redis_checks.latency(store, clock)]
    except TROUBLE:
        return told
    try:
        async with asyncio.timeout(PATIENCE_S):
            findings += await redis_checks.settings(store)
    except TROUBLE:
        pass  # INFO is refused to us: the rest is known
    return RedisObject(
        url=told.url,
        prefix=told.prefix,
        is_reachable=True,
        latency_ms=round(health.latency_s * 1000, 2),
        memory_used_bytes=health.memory_used,
        memory_max_bytes=health.memory_max,
        clients=health.clients,
        findings=findings,
    )


async def _processes(store: Store) -> list[ProcessObject] | None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            running = await processes(store)
    except TROUBLE:
        return None
    return [
        ProcessObject(
            kind=one.kind,
            name=one.name,
            version=one.version,
            host=one.host,
            pid=one.pid,
            since_at_ms=one.since_s * 1000,
            clock_ms=one.clock_ms,
        )
        for one in running
    ]


def limits_of(
    gateway: GatewaySettings, *, max_body: int, max_file: int, max_stored: int, quota: Quota = NO_QUOTA
) -> list[LimitObject]:
    """By the flags that set them."""
    return [
        LimitObject(
            flag="--max-buffered-requests",
            value=gateway.max_buffered_requests,
            unit="requests",
            meaning="May wait in a pool's buffer; one more is answered with 503.",
        ),
        LimitObject(
            flag="--buffered-request-timeout",
            value=gateway.buffered_request_timeout_ms,
            unit="ms",
            meaning="A request may wait for a slot; then it is answered with 504.",
        ),
        LimitObject(
            flag="--inference-item-timeout",
            value=gateway.inference_item_timeout_ms,
            unit="ms",
            meaning="Between two tokens, and before the first; then the request is given up with 504.",
        ),
        LimitObject(
            flag="--max-estimated-wait",
            value=gateway.max_estimated_wait_ms,
            unit="ms",
            meaning="Past this estimate a request is answered with 503; 0 is no bound.",
        ),
        LimitObject(
            flag="--tenant-share",
            value=gateway.tenant_share,
            unit="share",
            meaning="Of the buffer that one tenant may fill.",
        ),
        LimitObject(
            flag="--max-batch-requests",
            value=gateway.max_batch_requests,
            unit="requests",
            meaning="Of batches and in the background may wait in a pool.",
        ),
        LimitObject(flag="--max-body", value=max_body, unit="bytes", meaning="Largest body of a request."),
        LimitObject(flag="--max-file", value=max_file, unit="bytes", meaning="Largest file that is uploaded."),
        LimitObject(
            flag="--max-stored",
            value=max_stored,
            unit="bytes",
            meaning="All stored files together; then uploads get 507.",
        ),
        LimitObject(
            flag="--response-ttl",
            value=gateway.storage.ttl_s * 1000,
            unit="ms",
            meaning="A response of /v1/responses is stored.",
        ),
        LimitObject(
            flag="--max-stored-responses",
            value=gateway.storage.max_num,
            unit="responses",
            meaning="A pool stores; those used longest ago make room.",
        ),
        LimitObject(
            flag="--max-stored-bytes",
            value=gateway.storage.max_bytes,
            unit="bytes",
            meaning="Of input these have together; they make room alike.",
        ),
        LimitObject(
            flag="--tenant-file-bytes",
            value=_most(quota.file_bytes),
            unit="bytes",
            meaning="Of files that a tenant may store; then it gets 413.",
        ),
        LimitObject(
            flag="--tenant-open-batches",
            value=_most(quota.open_batches),
            unit="",
            meaning="Batches of a tenant that have not ended; then it gets 429.",
        ),
        LimitObject(
            flag="--tenant-batch-lines",
            value=_most(quota.batch_lines),
            unit="",
            meaning="Lines of all those batches; then it gets 429.",
        ),
    ]


def _most(bound: Bound | None) -> int | str:
    return "none" if bound is None else bound.most
