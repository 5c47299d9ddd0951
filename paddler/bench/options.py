"""The flags of `paddler bench`, read into a plan. Whatever cannot be meant is a `UsageError` that says what to do."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import rich_click as click
from msgspec import Struct

from paddler.bench.client import Target
from paddler.bench.goals import Goal, read_goal
from paddler.bench.workload import Span
from paddler.certificates import CertificateProblem, Named, check_authorities
from paddler.dashboard.address import Access

FIXED = ("messages", "stream", "stream_options")


class SpanType(click.ParamType[Span, str]):
    """`100`, or `50:200` for each of these equally often."""

    name = "n or low:high"

    def __init__(self, at_least: int = 1) -> None:
        self._at_least = at_least

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Span:
        low, colon, high = value.partition(":")
        try:
            span = Span(int(low), int(high if colon else low))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor LOW:HIGH, such as 50:200.", param, ctx)
        if not self._at_least <= span.low <= span.high <= 10_000_000:
            self.fail(f"{value!r}: from {self._at_least} upwards, the lower number first.", param, ctx)
        return span


class Place(Struct, frozen=True):
    """A server: `url` is without `/v1` and a slash at its end."""

    label: str
    url: str

    def __str__(self) -> str:
        return f"{self.label}={self.url}"


class PlaceType(click.ParamType[Place, str]):
    """A URL with or without `/v1`, and before it with `NAME=` what the report calls it."""

    name = "[name=]url"

    def convert(self, value: str | Place, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        if isinstance(value, Place):
            return value
        label, equals, rest = value.partition("=")
        if not equals or "://" in label:
            label, rest = "", value
        url = self._checked(rest, param, ctx)
        return Place(label.strip() or url.partition("://")[2], url)

    def _checked(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as error:
            self.fail(f"{value!r}: {error}.", param, ctx)
        if url.scheme not in ("http", "https") or not url.host:
            self.fail(f"{value!r} is no URL such as http://127.0.0.1:8061.", param, ctx)
        if url.userinfo or url.query or url.fragment:
            self.fail("A URL without user, query and fragment is wanted; a key is for --api-key-file.", param, ctx)
        return value.rstrip("/").removesuffix("/v1").removesuffix("/v1/chat/completions").rstrip("/")


def read_goals(texts: Sequence[str]) -> tuple[Goal, ...]:
    """Each text may have several."""
    try:
        goals = tuple(read_goal(word) for text in texts for word in text.replace(",", " ").split())
    except ValueError as error:
        raise click.UsageError(f"--goodput: {error}.") from None
    if texts and not goals:
        raise click.UsageError("--goodput names no goal, such as ttft:2000.")
    if len({goal.measure for goal in goals}) < len(goals):
        raise click.UsageError("--goodput: each measure once.")
    return goals


def read_extra(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        extra = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.UsageError(f'--extra-body is no JSON object, such as {{"temperature": 0}}: {error}.') from None
    if wrong := [name for name in extra if name in FIXED]:
        raise click.UsageError(f"--extra-body: {', '.join(wrong)} is what the benchmark says itself.")
    return extra


def read_headers(flag: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        is_sendable = value.isascii() and value.strip().isprintable()
        if not colon or not name.strip().replace("-", "").replace("_", "").isalnum() or not is_sendable:
            raise click.UsageError(f"{flag}: {name!r} is not the beginning of NAME: VALUE.")
        found[name.strip()] = value.strip()
    return found


def read_target(
    flag: str,
    place: Place,
    model: str | None,
    key_file: Path | None,
    headers: Sequence[str],
    tls_ca: Path | None,
    now_s: float,
) -> Target:
    """`flag` is that of the URL; the others are called `--model`, or with `--compare` `--compare-model` and so on."""
    before = "--compare-" if flag == "--compare" else "--"
    said = read_headers(f"{before}header", headers)
    if key_file is not None:
        if any(name.lower() == "authorization" for name in said):
            raise click.UsageError(f"{before}api-key-file and an {before}header Authorization exclude each other.")
        said["authorization"] = f"Bearer {_api_key(f'{before}api-key-file', key_file)}"
    return Target(place.label, place.url, model, said, _tls(place.url, tls_ca, now_s))


def _api_key(flag: str, path: Path) -> str:
    try:
        key = Access("", path).api_key()
    except OSError as error:
        raise click.UsageError(f"{flag} {path}: {error.strerror}.") from None
    except ValueError as error:
        raise click.UsageError(f"{flag} {path}: {error}.") from None
    assert key is not None
    return key


def _tls(url: str, ca: Path | None, now_s: float) -> ssl.SSLContext | None:
    if ca is None or not url.startswith("https://"):
        return None
    try:
        check_authorities(Named("--tls-ca", ca), now_s)
    except CertificateProblem as error:
        raise click.UsageError(f"{error}.") from None
    return ssl.create_default_context(cafile=ca)
