"""Random requests to every route of the documents, valid ones and broken ones, with a real balancer and agent: only
what they promise is answered, and nothing breaks. `PADDLER_TEST_SIZE=full` sends 10,000."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import httpx
import pytest
import schemathesis
from fuzz_world import FAILED, fuzzed_balancer, known_ids, narrowed
from hypothesis import HealthCheck, Phase, given, settings
from litestar import Litestar
from litestar.routes import HTTPRoute
from openapi_checks import Document
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from api.inference.app import create_inference_app
from api.management.app import create_management_app
from api.openai.app import create_openai_app
from api.operation import KEY, operation_of
from paddler.testing.servers import RedisServer

pytestmark = [pytest.mark.xdist_group("fuzz"), pytest.mark.timeout(600)]

NUM_CASES = 10_000 if os.environ.get("PADDLER_TEST_SIZE") == "full" else 500


class Route(NamedTuple):
    service: str
    path: str
    method: str
    modes: tuple[GenerationMode, ...]
    """Where nothing is read that could be broken, only valid requests are sent."""


class NoGateway:
    """Handlers take hold of what they will need."""

    url = "redis://127.0.0.1:6379/0"

    def __getattr__(self, name: str) -> None: ...


def apps() -> dict[str, Litestar]:
    gateway, clock, store = cast("Any", NoGateway()), cast("Any", None), cast("Any", NoGateway())
    shelf = cast("Any", NoGateway())
    return {
        "inference": create_inference_app(gateway, clock, 1, shelf),
        "openai": create_openai_app(gateway, clock, 1, shelf),
        "management": create_management_app(store, asyncio.Event(), clock, 1),
    }


def routes(service: str, app: Litestar) -> list[Route]:
    """But for streams that have no end; `test_openapi.py` looks at their first events."""
    found: list[Route] = []
    for route in app.routes:
        if isinstance(route, HTTPRoute) and not (service == "management" and route.path.endswith("/stream")):
            parts = [part if isinstance(part, str) else f"{{{part.name}}}" for part in route.path_components]
            for handler in route.route_handlers:
                if KEY in handler.opt:
                    operation = operation_of(handler)
                    # Whatever is accepted is no wrong `Accept`.
                    names = [part.name for part in route.path_components if not isinstance(part, str)]
                    parameters = [
                        one
                        for one in operation.parameters
                        if one.name != "Accept" and (one.where != "path" or one.name in names)
                    ]
                    reads = operation.request is not None or parameters
                    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if reads else (GenerationMode.POSITIVE,)
                    path = "/" + "/".join(parts)
                    found += [Route(service, path, str(method), modes) for method in handler.http_methods]
    # What is deleted others cannot ask for any more.
    return sorted(found, key=lambda route: (route.method == "DELETE", route))


ROUTES = [route for service, app in apps().items() for route in routes(service, app)]
FORM = "multipart/form-data"
WEIGHTS = {"/v1/chat/completions": 8}
"""More cases for what has most to get wrong."""
TOTAL = sum(WEIGHTS.get(route.path, 1) * len(route.modes) for route in ROUTES)
CASES = [(route, mode) for route in ROUTES for mode in route.modes]


class World(NamedTuple):
    """Of one service."""

    url: str
    document: Document
    schema: Any
    headers: dict[str, str]


@pytest.fixture(scope="session")
def worlds(valkey: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    prefix = f"t{secrets.token_hex(4)}"
    with fuzzed_balancer(valkey.url, prefix, tmp_path_factory.mktemp("fuzz")) as urls:
        known = known_ids(urls)
        found: dict[str, World] = {}
        for service, url in urls.items():
            content = httpx.get(f"{url}/openapi.json", trust_env=False).json()
            schema = schemathesis.openapi.from_dict(narrowed(content, known))
            found[service] = World(url, Document(content), schema, known.headers)
        yield found


@pytest.mark.parametrize(
    ("route", "mode"),
    CASES,
    ids=[f"{route.service} {route.method} {route.path} {mode.name.lower()}" for route, mode in CASES],
)
def test_nothing_is_answered_but_what_the_document_promises(
    worlds: dict[str, World], route: Route, mode: GenerationMode
) -> None:
    world = worlds[route.service]
    num_cases = math.ceil(NUM_CASES * WEIGHTS.get(route.path, 1) / TOTAL)

    @settings(
        max_examples=num_cases,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=world.schema[route.path][route.method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call(base_url=world.url, timeout=30, headers=world.headers)
        status = answer.status_code
        media = answer.headers.get("content-type", [""])[0]
        # Who gives a slot a millisecond to become free may be told that none did; one of the requests has failed.
        is_expected = (status == 504 and "X-Request-Timeout" in (case.headers or {})) or FAILED in answer.text
        # 501 is the one thing that some routes answer.
        assert status < 500 or status == 501 or is_expected, answer.text[:500]
        goes_on = "starting_after" in (case.query or {}) or "Last-Event-ID" in (case.headers or {})
        if route.method != "HEAD":
            world.document.check(
                route.path, route.method.lower(), status, media, answer.text, may_be_empty=goes_on and status == 200
            )
        # A schema cannot say all that is wrong: a call of a tool that no message has made, a text that is empty.
        excluded = [positive_data_acceptance, not_a_server_error]
        if case.media_type == FORM:
            # Parts of a form have no types: the number 17 is sent as the text, which is right.
            excluded.append(negative_data_rejection)
        case.validate_response(answer, excluded_checks=excluded)

    ask()
