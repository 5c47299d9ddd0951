"""Random requests to every route of the document, valid ones and broken ones, with a real balancer and agent: only what
the document promises is answered, and nothing breaks. `PADDLER_TEST_SIZE=full` sends 10,000."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import httpx
import pytest
import schemathesis
from fuzz_world import fuzzed_balancer, known_ids, narrowed
from hypothesis import HealthCheck, Phase, given, settings
from litestar.routes import HTTPRoute
from openapi_checks import Document
from schemathesis.generation import GenerationMode

from api.inference.app import create_inference_app
from paddler.testing.servers import RedisServer

pytestmark = [pytest.mark.xdist_group("fuzz"), pytest.mark.timeout(600)]

NUM_CASES = 10_000 if os.environ.get("PADDLER_TEST_SIZE") == "full" else 500


def routes() -> list[tuple[str, str]]:
    app = create_inference_app(cast("Any", None), cast("Any", None), 1)
    found: set[tuple[str, str]] = set()
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            parts = [part if isinstance(part, str) else f"{{{part.name}}}" for part in route.path_components]
            found |= {("/" + "/".join(parts), method) for method in route.methods - {"OPTIONS"}}
    return sorted(found)


ROUTES = routes()
WEIGHTS = {("/v1/chat/completions", "POST"): 8}
"""More cases for what has most to get wrong."""
TOTAL = 2 * sum(WEIGHTS.get(route, 1) for route in ROUTES)


class World(NamedTuple):
    url: str
    document: Document
    schema: Any


@pytest.fixture(scope="session")
def world(valkey: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    prefix = f"t{secrets.token_hex(4)}"
    with fuzzed_balancer(valkey.url, prefix, tmp_path_factory.mktemp("fuzz")) as url:
        content = httpx.get(f"{url}/openapi.json", trust_env=False).json()
        schema = schemathesis.openapi.from_dict(narrowed(content, list(known_ids(url).values())))
        yield World(url, Document(content), schema)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "broken"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[1]} {route[0]}")
def test_nothing_is_answered_but_what_the_document_promises(
    world: World, route: tuple[str, str], mode: GenerationMode
) -> None:
    path, method = route
    num_cases = math.ceil(NUM_CASES * WEIGHTS.get(route, 1) / TOTAL)

    @settings(
        max_examples=num_cases,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=world.schema[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call(base_url=world.url, timeout=30)
        status = answer.status_code
        media = answer.headers.get("content-type", [""])[0]
        assert status < 500 or (status == 504 and "X-Request-Timeout" in (case.headers or {})), answer.text[:500]
        if method != "HEAD" and status != 405:
            world.document.check(path, method.lower(), status, media, answer.text)
        case.validate_response(answer)

    ask()
