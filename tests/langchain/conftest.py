"""A fleet with the starter model, or another server of OpenAI's API that is to be compared with it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator

import pytest
from up_harness import Up

STOP_S = 10.0
PEER = "LANGCHAIN_PEER"
"""The base URL of another server, set by `tests/bench/langchain_peer.py`."""


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL for clients, `/v1` included."""
    if peer := os.environ.get(PEER):
        yield peer
        return
    up = Up(tmp_path_factory.mktemp("up"), "--engine", "llama", "--buffered-request-timeout", "60000")
    try:
        asyncio.run(up.ready())
        yield f"{up.openai_url}/v1"
        up.process.terminate()
        up.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"up did not stop within {STOP_S} s:\n{up.log}")
    finally:
        up.end()


@pytest.fixture
def benchmark() -> None:
    """Of a plugin that is switched off: the one case that asks for it is skipped, as it replays a recorded stream."""


@pytest.fixture
def vcr() -> None:
    """As `benchmark`."""
