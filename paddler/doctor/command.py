"""`paddler doctor`: looks at everything that a fleet stands on, and says what to do about what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from paddler import __version__
from paddler.certificates import CertificateProblem, Validity
from paddler.clock import Clock, SystemClock
from paddler.doctor import acl_checks, fleet_checks, machine_checks, redis_checks
from paddler.doctor.finding import Finding, Level, fail, ok, warn
from paddler.doctor.model_check import ModelQuestion, check_model
from paddler.panel_options import DEFAULT_ADDR, PANEL_ADDR
from paddler.settings import ADDRESS, Address, aws_options, option, pool_option, redis_options
from paddler.store.acl import Role
from paddler.store.client import TROUBLE, connect
from paddler.store.location import locate
from paddler.tls_options import TlsFiles, tls_options
from paddler.up.plan import without_password

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


class Question(Struct, frozen=True, kw_only=True):
    """What is to be looked at. A service whose address is None is not meant to run here."""

    redis_url: str
    redis_prefix: str
    pool: str
    role: Role | None = None
    services: dict[str, Address | None]
    tls: TlsFiles | None = None
    model: Path | None = None
    slots: int = 4
    context_size: int = 8192
    threads: int | None = None


class Report(Struct, frozen=True, kw_only=True):
    """What `--json` prints: `ok` is false when anything failed."""

    version: str
    ok: bool
    findings: list[Finding]


@click.command(name="doctor")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@option("--model", type=click.Path(path_type=Path), help="A GGUF file: can it be read, and is there memory for it?")
@option("--slots", type=click.IntRange(1, 256), default=4, help="For that model.")
@option("--context-size", type=click.IntRange(min=64), default=8192, help="For that model.")
@option("--threads", type=click.IntRange(min=1), help="What agents here are given.")
@option(
    "--role",
    type=click.Choice([role.value for role in Role if role is not Role.ADMIN]),
    help="Whose rights the ACL user must have; by default whose name it has.",
)
@option("--inference-addr", type=ADDRESS, default="127.0.0.1:8061", help="As the balancer's.")
@option("--management-addr", type=ADDRESS, default="127.0.0.1:8060", help="As the balancer's.")
@option("--compat-openai-addr", type=ADDRESS, default="127.0.0.1:8070", help="As the balancer's.")
@option(PANEL_ADDR, type=ADDRESS, default=DEFAULT_ADDR, help="As the balancer's.")
@aws_options
@tls_options
@pool_option
@redis_options
def command(
    *,
    as_json: bool,
    model: Path | None,
    slots: int,
    context_size: int,
    threads: int | None,
    role: str | None,
    inference_addr: Address,
    management_addr: Address,
    compat_openai_addr: Address,
    web_admin_panel_addr: Address,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    pool: str,
    redis_url: str,
    redis_prefix: str,
) -> None:
    """Check Redis, the fleet and this machine: each line is ok, warn or fail, with what to do about it.

    Exits with 1 when anything fails.
    """
    question = Question(
        redis_url=redis_url,
        redis_prefix=redis_prefix,
        pool=pool,
        role=Role(role) if role else None,
        services={
            "--inference-addr": inference_addr,
            "--management-addr": management_addr,
            "--compat-openai-addr": compat_openai_addr,
            PANEL_ADDR: web_admin_panel_addr,
        },
        tls=TlsFiles(tls_cert, tls_key, tls_client_ca) if tls_cert else None,
        model=model,
        slots=slots,
        context_size=context_size,
        threads=threads,
    )
    findings = asyncio.run(_all(question))
    is_well = all(finding.level is not Level.FAIL for finding in findings)
    if as_json:
        report = Report(version=__version__, ok=is_well, findings=findings)
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        _print(findings)
    if not is_well:
        raise SystemExit(1)


async def _all(question: Question) -> list[Finding]:
    return [finding async for finding in examine(question, SystemClock())]


async def examine(question: Question, clock: Clock) -> AsyncIterator[Finding]:
    """Every check, in the order in which things are built on each other."""
    async for finding in _redis(question, clock):
        yield finding
    for finding in await asyncio.to_thread(machine_checks.cpu_build):
        yield finding
    yield machine_checks.threads(question.threads)
    memory, available = machine_checks.memory()
    yield memory
    for flag, address in question.services.items():
        if address is not None:
            yield await machine_checks.service(flag, address, question.tls.cert if question.tls else None)
    if question.tls is not None:
        yield _certificate(question.tls, clock.wall())
    if question.model is not None:
        asked = ModelQuestion(
            path=question.model, slots=question.slots, context_size=question.context_size, available=available
        )
        for finding in await asyncio.to_thread(check_model, asked):
            yield finding


async def _redis(question: Question, clock: Clock) -> AsyncIterator[Finding]:
    store = connect(question.redis_url, question.redis_prefix)
    location = locate(question.redis_url)
    try:
        reached = await redis_checks.reach(store, without_password(question.redis_url), clock)
        yield reached
        if reached.level is Level.FAIL:
            return
        for finding in redis_checks.encryption(location):
            yield finding
        checks: list[tuple[str, Any]] = [
            ("redis settings", lambda: redis_checks.settings(store)),
            ("redis latency", lambda: redis_checks.latency(store, clock)),
            ("functions", lambda: redis_checks.functions(store)),
            ("redis user", lambda: acl_checks.access(store, location, question.role, question.pool)),
            ("clock", lambda: redis_checks.clock_difference(store, clock)),
            ("format", lambda: fleet_checks.formats(store)),
            ("fleet", lambda: fleet_checks.fleet(store)),
        ]
        for name, check in checks:
            try:
                found: Finding | list[Finding] = await check()
            except TROUBLE as error:
                found = warn(name, f"not told: {error or type(error).__name__}", acl_checks.REMEDY)
            for finding in found if isinstance(found, list) else [found]:
                yield finding
    finally:
        await store.close()


def _certificate(files: TlsFiles, now_s: float) -> Finding:
    try:
        found: Validity = files.check(now_s)
    except CertificateProblem as error:
        return fail("certificate", str(error), "see docs/security.md")
    if found.ends_soon(now_s):
        return warn(
            "certificate", f"valid until {found.end} only", "renew it; the balancer takes the new file by itself"
        )
    return ok("certificate", f"valid until {found.end}")


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        said = escape(finding.said) + (f"\n[dim]{escape(finding.remedy)}[/]" if finding.remedy else "")
        table.add_row(f"[{STYLES[finding.level]}]{finding.level}[/]", finding.check, said)
    console.print(table)
    failed = sum(finding.level is Level.FAIL for finding in findings)
    warned = sum(finding.level is Level.WARN for finding in findings)
    console.print(f"\n{len(findings)} checks: {failed} failed, {warned} warn.")
