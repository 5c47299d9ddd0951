"""When the fleet is ready, and what is said then."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import ssl
from collections.abc import Callable, Sequence

from paddler.clock import Clock
from paddler.settings import DEFAULT_POOL, env_name
from paddler.store.client import TROUBLE, Store
from paddler.store.keys import PoolKeys
from paddler.up.plan import Settings, agent_flags, without_password

POLL_S = 0.1
HTTP_TIMEOUT_S = 2.0
REMIND_S = 20.0
EXAMPLES: dict[str, dict[str, object]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Say hello in five words."}], "max_tokens": 32},
    "embeddings": {"input": "The quick brown fox jumps over the lazy dog."},
    "rerank": {"query": "Who jumps?", "documents": ["A dog sleeps.", "A fox jumps."]},
}
PATHS = {"generate": "chat/completions", "embed": "embeddings", "rerank": "rerank"}
RULE = "─" * 80
SLOW = "no agent is ready yet; a large model takes long to load or to download"
NO_MODEL = "the desired state wants no model, so no agent serves one; `paddler model use` gives it one"


async def wait_for_balancer(settings: Settings, clock: Clock) -> None:
    """Return once `GET /health` of the inference service answers 200."""
    while not await is_healthy(settings):
        await clock.sleep(POLL_S)


async def is_healthy(settings: Settings) -> bool:
    """One that asks for a certificate, which we have not, is there once it has shown its own."""
    address = settings.inference_addr
    host, _, _ = address.url.removeprefix("http://").rpartition(":")
    context = None if settings.tls_cert is None else _any_certificate()
    try:
        async with asyncio.timeout(HTTP_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), address.port, ssl=context)
            try:
                if settings.tls_client_ca is not None:
                    return True
                writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _any_certificate() -> ssl.SSLContext:
    """It is our own child, whose certificate is made out to another name than the address of this machine."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_process(pid: int) -> bool:
    """Whether there is one of this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


async def wait_for_agent(
    store: Store, is_ours: Callable[[int], bool], clock: Clock, remind: Callable[[str], None]
) -> list[str]:
    """Return once an agent of ours, as its process id tells, has registered, once its model is loaded: what it can do.

    By process id, because the queue of an earlier run may still name its agents, and one that is busy from the start
    (requests waited for it) is not among the free ones. `remind` is called now and then while it takes long.
    """
    keys = PoolKeys(store.prefix, DEFAULT_POOL)
    next_reminder = clock.monotonic() + REMIND_S
    wants_none = False
    while True:
        try:
            found: list[bytes] = await store.redis.zrange(keys.agents(), 0, -1)  # pyright: ignore[reportUnknownMemberType]  # untyped arguments
            for agent in found:
                fields: list[bytes | None] = await store.redis.hmget(
                    keys.agent(agent.decode()), ["pid", "state", "abilities", "state_application_status"]
                )  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType, reportUnknownMemberType]  # typed as sync or async
                if not is_ours(int(fields[0] or 0)):
                    continue
                if fields[1] == b"ready":
                    return (fields[2] or b"").decode().split()
                wants_none = (fields[1], fields[3]) == (b"waiting", b"Applied")
        except TROUBLE:
            pass  # Redis is starting again, and its supervisor says so
        if clock.monotonic() > next_reminder:
            next_reminder += REMIND_S
            remind(NO_MODEL if wants_none else SLOW)
        await clock.sleep(POLL_S)


def ready_message(
    settings: Settings,
    redis_url: str,
    program: str,
    seconds: float,
    abilities: Sequence[str] = (),
    *,
    has_keys: bool = False,
) -> str:
    """What stands on the screen when everything runs. The curl command is one line, so that it can be pasted, and asks
    for what the agents can do."""
    rows = {
        "OpenAI": f"{settings.url(settings.compat_openai_addr)}/v1",
        "inference": settings.url(settings.inference_addr),
        "management": settings.url(settings.management_addr),
        "panel": settings.url(settings.web_admin_panel_addr),
        "Redis": without_password(redis_url),
        "agents": _describe_agents(settings),
    }
    table = "\n".join(f"  {name:<11} {value}" for name, value in rows.items())
    curl = curl_command(settings, abilities, has_keys=has_keys)
    body = f"Try it:\n\n{curl}"
    if settings.agents.most is not None:
        body = f"{_describe_scaling(settings)}\n\n{body}"
    elif not settings.agents.fixed:
        body = _add_agent(settings, redis_url, program, curl)
    kept = "" if settings.redis_url else " Background requests are kept."
    stop = f"Stop with Ctrl-C.{kept}"
    return f"\n{RULE}\nPaddler is up after {seconds:.1f} s.\n\n{table}\n\n{body}\n\n{stop}\n{RULE}\n"


def curl_command(settings: Settings, abilities: Sequence[str] = (), *, has_keys: bool = False) -> str:
    """A request that works when pasted into any POSIX shell: a chat completion, unless the agents can no such thing.
    Where there are API keys, its reader has to have one. With TLS it does not check for which name the certificate was
    made out; who needs one of his own adds it."""
    path = next((path for ability, path in PATHS.items() if ability in abilities), "chat/completions")
    request = {"model": DEFAULT_POOL, **EXAMPLES[path]}
    url = f"{settings.url(settings.compat_openai_addr)}/v1/{path}"
    unchecked = "" if settings.tls_cert is None else "-k "
    own = "" if settings.tls_client_ca is None else "--cert CERTIFICATE.pem --key KEY.pem "
    key = f'-H "Authorization: Bearer ${env_name("--api-key")}" ' if has_keys else ""
    body = f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"
    return f"curl {unchecked}{own}{shlex.quote(url)} {key}{body}"


def agent_command(settings: Settings, redis_url: str, program: str) -> str:
    """How to add an agent to this fleet from another terminal."""
    own = agent_flags(settings, "agent-1")
    prefix = [] if settings.redis_prefix == "paddler" else ["--redis-prefix", settings.redis_prefix]
    return f"{program} {shlex.join(['agent', *own, '--redis-url', without_password(redis_url), *prefix])}"


def _add_agent(settings: Settings, redis_url: str, program: str, curl: str) -> str:
    wait = settings.buffered_request_timeout / 1000
    return (
        f"There is no agent: a request waits up to {wait:g} s for one. Start one in another terminal:\n\n"
        f"{agent_command(settings, redis_url, program)}\n\nThen try it:\n\n{curl}"
    )


def _describe_scaling(settings: Settings) -> str:
    wait, idle = settings.buffered_request_timeout / 1000, settings.cooldown / 1000
    begins = "A request starts an agent when there are too few slots"
    if not settings.agents.least:
        begins = f"There is no agent: the first request starts one, and waits up to {wait:g} s for it"
    return f"{begins}. Agents that nobody has needed for {idle:g} s end."


def _describe_agents(settings: Settings) -> str:
    if not settings.agents.fixed and settings.agents.most is None:
        return "none"
    model = settings.model.name if settings.model else f"the {settings.engine} engine"
    if settings.follows:
        model = "the model of the desired state"
    return f"{settings.agents} with {settings.slots} slots each, {model}"
