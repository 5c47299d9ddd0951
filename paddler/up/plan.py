"""From settings to children: which processes, with which flags, stopped in which order. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from paddler import engine_flags, kv_flags
from paddler.cors_options import cors_flags
from paddler.desired.database import MEMORY, StateDatabase
from paddler.engine_settings import LoraAdapter
from paddler.host_options import host_flags
from paddler.settings import ENV_PREFIX, Address, env_name
from paddler.up.agents import AgentCount
from paddler.up.supervisor import Spec

AGENT_GRACE_MS = 1000
"""What an agent may finish when everything stops; shorter than a stage of stopping. The rest stays in the queue."""

AGENT_STOP_MS = 1300
"""Then an autoscaler kills an agent, before it is killed itself at the end of a stage."""

UP_KV = tuple(name for name in kv_flags.NAMES if name != "kv_advertise")
"""Flags of `kv_flags.py` that `paddler up` has: its agents are on one machine and find each other."""

AGENTS_OWN = ("--cache-dir", "--download-token-file", "--hf-token-file")
"""Flags of an agent that `paddler up` does not have; their variables reach it."""


class Settings(Struct, frozen=True, kw_only=True):
    """What `paddler up` was asked for. `redis_url` is None for the embedded Valkey; durations are milliseconds."""

    redis_url: str | None
    redis_prefix: str
    state_dir: Path
    model: Path | None
    model_name: str | None
    engine: str
    agents: AgentCount
    slots: int
    context_size: int | None
    threads: int | None
    n_gpu_layers: int | None
    n_batch: int | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: str | None = None
    split_mode: str | None = None
    main_gpu: int | None = None
    tensor_split: tuple[float, ...] | None = None
    lora_adapters: tuple[LoraAdapter, ...] | None = None
    context_shift: bool | None = None
    kv_ram: int | None = None
    kv_disk: Path | None = None
    kv_disk_size: int | None = None
    kv_url: str | None = None
    kv_key_file: Path | None = None
    kv_addr: Address | None = None
    kv_grace: int | None = None
    pooling: str | None = None
    multimodal_projection: str | None = None
    image_resize_to_fit: int | None = None
    inference_addr: Address
    management_addr: Address
    compat_openai_addr: Address
    web_admin_panel_addr: Address
    buffered_request_timeout: int
    max_buffered_requests: int
    inference_item_timeout: int
    share_prefix_cache: bool = False
    state_database: StateDatabase = MEMORY
    management_cors_allowed_host: tuple[str, ...] = ()
    inference_cors_allowed_host: tuple[str, ...] = ()
    allowed_host: tuple[str, ...] = ()
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    statsd_addr: Address | None = None
    statsd_prefix: str = "paddler"
    statsd_reporting_interval: int = 10_000
    otlp_endpoint: str | None = None
    cooldown: int = 30_000
    log_level: str
    log_format: str

    @property
    def follows(self) -> bool:
        """Whether its agents serve what the pool's desired state wants."""
        return self.model is None and self.engine == "llama"

    def url(self, address: Address) -> str:
        """Where a service can be called."""
        return address.url if self.tls_cert is None else address.url.replace("http:", "https:", 1)


def paddler_specs(settings: Settings, *, awaits: str | None) -> list[Spec]:
    """The balancer, the agents and the worker. `awaits` is the child that must be ready first, if we start Redis."""
    shared = ["--redis-prefix", settings.redis_prefix]
    shared += ["--log-level", settings.log_level, "--log-format", settings.log_format]
    reporting = reporting_flags(settings)
    balancer = flags(
        inference_addr=settings.inference_addr,
        management_addr=settings.management_addr,
        compat_openai_addr=settings.compat_openai_addr,
        web_admin_panel_addr=settings.web_admin_panel_addr,
        buffered_request_timeout=settings.buffered_request_timeout,
        max_buffered_requests=settings.max_buffered_requests,
        inference_item_timeout=settings.inference_item_timeout,
        share_prefix_cache=settings.share_prefix_cache,
        state_database=settings.state_database,
        insecure=settings.insecure,
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        tls_client_ca=settings.tls_client_ca,
    )
    balancer += cors_flags(settings.management_cors_allowed_host, settings.inference_cors_allowed_host)
    balancer += host_flags(settings.allowed_host)
    # There is no other balancer to resume at, and what is left would be computed for nobody at the next start.
    balancer += ["--cancel-on-stop", *reporting, *flags(otlp_endpoint=settings.otlp_endpoint)]
    specs = [Spec(name="balancer", command=_paddler("balancer", *balancer, *shared), awaits=awaits, stop_stage=0)]
    own = flags(grace=AGENT_GRACE_MS, on_model_error=None if settings.follows else "exit")
    for name in agent_names(settings.agents.fixed):
        command = _paddler("agent", *agent_flags(settings, name), *own, *shared)
        specs.append(Spec(name=name, command=command, awaits=awaits, stop_stage=1, may_end=True))
    if settings.agents.most is not None:
        command = _paddler("autoscale", *_scaling_flags(settings), *shared, "--", *_serving_flags(settings), *own)
        specs.append(Spec(name="autoscale", command=command, awaits=awaits, stop_stage=1))
    specs.append(Spec(name="worker", command=_paddler("worker", *reporting, *shared), awaits=awaits, stop_stage=1))
    return specs


def reporting_flags(settings: Settings) -> list[str]:
    """Of balancer and worker, which elect who sends the fleet's gauges."""
    if settings.statsd_addr is None:
        return []
    names = ("statsd_addr", "statsd_prefix", "statsd_reporting_interval")
    return flags(**{name: getattr(settings, name) for name in names})


def agent_names(num_agents: int) -> list[str]:
    return [f"agent-{number}" for number in range(1, num_agents + 1)]


def agent_flags(settings: Settings, name: str) -> list[str]:
    """What makes an agent one of this fleet, apart from the Redis."""
    return [*flags(name=name, slots=settings.slots), *_serving_flags(settings)]


def _serving_flags(settings: Settings) -> list[str]:
    return flags(
        engine=settings.engine,
        model=settings.model,
        model_name=settings.model_name,
        context_size=settings.context_size,
        otlp_endpoint=settings.otlp_endpoint,
        **{name: getattr(settings, name) for name in engine_flags.NAMES},
        **_kv_flags(settings),
    )


def _kv_flags(settings: Settings) -> dict[str, object]:
    """Without the URL, which may have a password: see `child_environment`."""
    given = {name for name in kv_flags.PLACES if getattr(settings, name) is not None}
    beside = {name for name, others in kv_flags.BESIDE.items() if name in UP_KV and given & set(others)}
    return {name: getattr(settings, name) for name in UP_KV if name in (given | beside) - {"kv_url"}}


def _scaling_flags(settings: Settings) -> list[str]:
    """Its agents are called as those of a fixed number, and end with it in whatever way it ends."""
    count = settings.agents
    return flags(
        min=count.least,
        max=count.most,
        slots=settings.slots,
        cooldown=settings.cooldown,
        stop_timeout=AGENT_STOP_MS,
        on_death="end",
        agent_name="agent",
    )


def child_environment(environment: Mapping[str, str], redis_url: str, kv_url: str | None = None) -> dict[str, str]:
    """The environment of the children: our own `PADDLER_*` are in their flags already, and must not count twice. Those
    of agents alone (`AGENTS_OWN`) stay.

    URLs of Redis go this way instead of by flag, because a command line is readable by everyone on the machine and
    they may hold a password.
    """
    own = {env_name(flag) for flag in AGENTS_OWN}
    kept = {name: value for name, value in environment.items() if not name.startswith(ENV_PREFIX) or name in own}
    told = {} if kv_url is None else {env_name("--kv-url"): kv_url}
    return kept | told | {env_name("--redis-url"): redis_url, "PYTHONUNBUFFERED": "1"}


def without_password(url: str) -> str:
    """A Redis URL fit to be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:***@{host}").geturl()


def flags(**values: object) -> list[str]:
    """`slots=4` becomes `--slots 4`, `quiet=True` `--quiet`; None and False are left out."""
    return [
        part
        for name, value in values.items()
        if value is not None and value is not False
        for part in (f"--{name.replace('_', '-')}", *([] if value is True else [engine_flags.flag_value(value)]))
    ]


def _paddler(*arguments: str) -> tuple[str, ...]:
    # -P: a folder named `api` or `workers` in the working directory must not be taken for ours.
    return (sys.executable, "-P", "-m", "paddler", *arguments)
