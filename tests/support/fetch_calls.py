"""One model on a bad server, for the tests of `tests/fetch/`."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from paddler.issues import IssueKind
from workers.agent.fetch.addresses import folder_name, parts_of
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.url import fetch_url

WAIT_S = 30.0
BODY = b"GGUF" + random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
PATH = "/models/tiny.gguf"


def ignore(_done: int, _total: int | None, _name: str) -> None:
    pass


def fetch(cache: ModelCache, url: str, sha256: str | None = None) -> Path:
    [path] = fetch_url(url, sha256, cache, ignore)
    return path


def refused(cache: ModelCache, url: str, kind: IssueKind, sha256: str | None = None) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(cache, url, sha256)
    assert caught.value.kind == kind, caught.value
    return caught.value


def partial_of(cache: ModelCache, url: str) -> Path:
    parts = parts_of(url)
    return cache.downloads / folder_name(parts) / f"{parts[0].name}.partial"
