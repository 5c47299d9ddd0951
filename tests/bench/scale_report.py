"""What was measured at each size, what follows from it for a shard, and both as a table."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tests.bench.scale_valkey import Function, Spent

REQUEST_TOKENS = 256
"""Of the request that ceilings are told for."""
SHARE = 0.7
"""Of a core that a shard may be busy: above it latencies grow."""


class Measured(Struct, kw_only=True):
    """One window; CPU seconds are of all agent processes, and of the gateway with its clients."""

    valkey: Spent
    tokens: int
    requests: int
    errors: int
    agents_cpu_s: float
    balancer_cpu_s: float


class Projection(Struct, kw_only=True):
    """CPU of Valkey's main thread: µs for each agent and second, for each request and for each token of it; the same of
    bytes, both ways. `None` where a window was too short to tell."""

    agent_us_s: float
    request_us: float | None
    token_us: float | None
    agent_bytes_s: float
    token_bytes: float | None
    functions_per_token: float | None
    max_agents_idle: int
    max_tokens_s: int | None
    """Of requests of `REQUEST_TOKENS`, with the agents that were measured, at `SHARE` of a core."""
    first_bottleneck: str


class Size(Struct, kw_only=True):
    agents: int
    slots: int
    connections: int
    memory_mib: float
    idle: Measured
    short: Measured
    long: Measured
    functions: list[Function]
    projection: Projection
    num_lost: int


class Report(Struct, kw_only=True):
    slots: int
    busy: int
    step_ms: float
    flush_ms: int
    sizes: list[Size]


def project(agents: int, idle: Measured, short: Measured, long: Measured) -> Projection:
    """From the windows without load, with short and with long answers: what is of an agent, a request and a token."""
    agent_us_s = idle.valkey.share * 1e6 / agents
    request_us, token_us = _solve([_above(idle, one) for one in (short, long)])
    max_tokens_s = None
    if request_us is not None and token_us is not None:
        left = SHARE * 1e6 - idle.valkey.share * 1e6
        max_tokens_s = max(0, round(left / (token_us + request_us / REQUEST_TOKENS)))
    used = {"valkey": long.valkey.cpu_s, "agents": long.agents_cpu_s, "balancer": long.balancer_cpu_s}
    return Projection(
        agent_us_s=round(agent_us_s, 1),
        request_us=request_us,
        token_us=token_us,
        agent_bytes_s=round((idle.valkey.bytes_in + idle.valkey.bytes_out) / idle.valkey.seconds / agents, 1),
        token_bytes=_bytes_per_token(idle, long),
        functions_per_token=_functions_per_token(idle, long),
        max_agents_idle=round(SHARE * 1e6 / agent_us_s) if agent_us_s else 0,
        max_tokens_s=max_tokens_s,
        first_bottleneck=max(used, key=lambda name: used[name]),
    )


def _above(idle: Measured, loaded: Measured) -> tuple[float, float, float]:
    """CPU µs a second that load has added, its requests and its tokens a second."""
    seconds = loaded.valkey.seconds
    return (loaded.valkey.share - idle.valkey.share) * 1e6, loaded.requests / seconds, loaded.tokens / seconds


def _solve(equations: list[tuple[float, float, float]]) -> tuple[float | None, float | None]:
    """Two loads, two unknowns: µs of a request and of a token."""
    (cpu, requests, tokens), (other_cpu, other_requests, other_tokens) = equations
    determinant = requests * other_tokens - other_requests * tokens
    if determinant == 0:
        return None, None
    request_us = (cpu * other_tokens - other_cpu * tokens) / determinant
    token_us = (requests * other_cpu - other_requests * cpu) / determinant
    return (round(request_us, 1), round(token_us, 1)) if min(request_us, token_us) > 0 else (None, None)


def _bytes_per_token(idle: Measured, loaded: Measured) -> float | None:
    if not loaded.tokens:
        return None
    seconds, before = loaded.valkey.seconds, idle.valkey
    background = (before.bytes_in + before.bytes_out) / before.seconds * seconds
    return round((loaded.valkey.bytes_in + loaded.valkey.bytes_out - background) / loaded.tokens, 1)


HEADINGS = (
    *(
        "agents",
        "connections",
        "MiB",
        "CPU idle",
        "calls/s idle",
        "CPU loaded",
        "tokens/s",
        "us an agent and s",
    ),
    *("us of a request", "us of a token", "bytes of a token", "calls a token", "agents lost"),
)


def _functions_per_token(idle: Measured, loaded: Measured) -> float | None:
    if not loaded.tokens:
        return None
    background = idle.valkey.functions / idle.valkey.seconds * loaded.valkey.seconds
    return round((loaded.valkey.functions - background) / loaded.tokens, 2)


def show(report: Report) -> str:
    last = report.sizes[-1]
    told, window = last.projection, last.long
    called = [[one.name, f"{one.calls_s:,.1f}", one.us, f"{one.calls_s * one.us / 1000:.2f}"] for one in last.functions]
    load = f"{report.busy} of them busy, a token each {report.step_ms:g} ms, sent after {report.flush_ms}"
    cpu = {"Valkey": window.valkey.cpu_s, "agents": window.agents_cpu_s, "balancer and clients": window.balancer_cpu_s}
    said = ", ".join(f"{name} {seconds:.2f}" for name, seconds in cpu.items())
    ceiling = f"{told.max_tokens_s:,} tokens/s" if told.max_tokens_s is not None else "nobody knows how many tokens/s"
    lines = [f"{report.slots} slots an agent, {load}; CPU is that of Valkey's main thread", ""]
    lines += [*_table(HEADINGS, [_row(size) for size in report.sizes]), ""]
    lines += [f"{last.agents} agents under short answers, by function:", ""]
    lines += [*_table(("name", "calls/s", "us each", "ms of a second"), called), ""]
    lines.append(f"CPU seconds of {window.valkey.seconds:.0f} s: {said}; first to saturate: {told.first_bottleneck}.")
    lines.append(
        f"Projected, not measured: at {SHARE:.0%} of a core one shard keeps {told.max_agents_idle:,} idle agents, or "
        f"carries {ceiling} of {last.agents} agents, in requests of {REQUEST_TOKENS} tokens."
    )
    return "\n".join(lines)


def _row(size: Size) -> list[object]:
    told, idle, long = size.projection, size.idle.valkey, size.long
    return [
        *(size.agents, size.connections, size.memory_mib),
        *(f"{idle.share:.1%}", f"{(idle.functions + idle.reads) / idle.seconds:,.0f}"),
        *(f"{long.valkey.share:.1%}", f"{long.tokens / long.valkey.seconds:,.0f}"),
        *(told.agent_us_s, told.request_us, told.token_us, told.token_bytes, told.functions_per_token, size.num_lost),
    ]


def _table(headings: tuple[str, ...], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]
