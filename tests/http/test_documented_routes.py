"""Every route that README and docs name with its method, or in a `curl`, is served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_harness import HttpBalancer
from openapi_checks import document_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {"8060": "management", "8061": "inference", "8070": "openai"}
NO_ROUTES = {"/api/v1/inference_socket", "/kv/blocks", "/v1"}
"""A WebSocket, of which OpenAPI has no words, what agents ask each other, and what clients begin every path with."""
METHODS = "GET|POST|PUT|PATCH|DELETE"
NAMED = re.compile(rf"\b(?:{METHODS})(?:(?:`? and `|, `|`, `|\|)(?:{METHODS}))* (/[\w./{{}}<>$-]+)")
CALLED = re.compile(r"http://127\.0\.0\.1:(8060|8061|8070)(/[\w./{}<>$-]+)")
METHOD = re.compile(METHODS)


def mentions() -> Iterator[tuple[str, str, str, str]]:
    """Document, service (empty: any), method (empty: any) and path."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        name, text = str(path.relative_to(ROOT)), path.read_text()
        for found in NAMED.finditer(text):
            for method in METHOD.findall(found[0].partition("/")[0]):
                yield name, "", method.lower(), found[1]
        for port, called in CALLED.findall(text):
            yield name, SERVICES[port], "", called


def pattern(template: str) -> re.Pattern[str]:
    return re.compile(
        re.sub(r"\\\{model_path\\\}", ".+", re.sub(r"\\\{(?!model_path)\w+\\\}", "[^/]+", re.escape(template)))
    )


async def test_named_routes_are_served(balancer: HttpBalancer) -> None:
    served = {
        service: [(pattern(path), method) for path, method, _ in (await document_of(balancer, service)).operations()]
        for service in SERVICES.values()
    }
    named = list(mentions())
    assert len(named) > 100
    unknown: list[str] = []
    for name, service, method, path in named:
        said = path.rstrip(".")
        if said in NO_ROUTES:
            continue
        routes = served[service] if service else [route for routes in served.values() for route in routes]
        if not any(one.fullmatch(said) and method in ("", verb) for one, verb in routes):
            unknown.append(f"{name}: {service} {method} {path}")
    assert unknown == []
