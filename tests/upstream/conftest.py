"""Another server, and engines that front it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_upstream import FakeUpstream

from paddler.clock import SystemClock
from paddler.testing.engine_run import EngineRun
from workers.agent.upstream.engine import UpstreamEngine
from workers.agent.upstream.settings import UpstreamSettings


@pytest.fixture
def server() -> Iterator[FakeUpstream]:
    with FakeUpstream() as server:
        yield server


@pytest.fixture
def new_engine(server: FakeUpstream) -> Iterator[Callable[..., UpstreamEngine]]:
    made: list[UpstreamEngine] = []

    def make(**settings: Any) -> UpstreamEngine:
        known: dict[str, Any] = {"url": server.url, "interval_s": 0.2, "timeout_s": 20.0}
        made.append(UpstreamEngine(UpstreamSettings(**known | settings), SystemClock()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def new_run(new_engine: Callable[..., UpstreamEngine]) -> Callable[..., EngineRun]:
    """Of an engine with these settings."""

    def make(**settings: Any) -> EngineRun:
        return EngineRun(new_engine(**settings))

    return make


@pytest.fixture
def run(new_run: Callable[..., EngineRun]) -> EngineRun:
    return new_run()
