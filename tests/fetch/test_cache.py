"""The folder where downloads are kept: checksums, disks, and agents that share it."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fetch_calls import BODY, DIGEST, PATH, WAIT_S, fetch, partial_of, refused
from file_server import FileServer, Trick

from paddler.remedies import Course
from workers.agent.fetch.addresses import folder_name, parts_of
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.url import fetch_url

PERSISTENT = """
import sys, time
from pathlib import Path
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.url import fetch_url

root, url, digest = sys.argv[1:]
kind = ""
while True:
    try:
        fetch_url(url, digest, ModelCache(root=Path(root), spare_bytes=0), lambda *_: None)
        break
    except FetchError as error:
        if error.kind != kind:
            print(kind := error.kind, flush=True)
        time.sleep(0.05)
"""


def test_a_wrong_checksum(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    wrong = "0" * 64
    for _ in range(2):
        assert refused(cache, url, "ModelCacheIsCorrupted", wrong).course is Course.RETRIES_LITTLE
        assert not list(cache.downloads.glob("*/tiny.gguf*"))
    assert len(server.gets(PATH)) == 2
    # A file that is there may be in use, and the checksum mistyped.
    path = fetch(cache, url)
    refused(cache, url, "ModelCacheIsCorrupted", wrong)
    assert path.read_bytes() == BODY


def test_a_file_of_the_cache_that_is_damaged(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    path = fetch(cache, url)
    assert fetch(cache, url, DIGEST) == path  # read once, without the network
    assert len(server.gets(PATH)) == 1
    path.write_bytes(BODY[:-1] + b"?")
    assert fetch(cache, url, DIGEST).read_bytes() == BODY
    path.write_bytes(BODY[:1000])
    assert fetch(cache, url).read_bytes() == BODY
    assert len(server.gets(PATH)) == 3


def test_no_room(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    full = ModelCache(root=cache.root, spare_bytes=1000, free_bytes=lambda _: len(BODY) + 999)
    assert "must stay free" in str(refused(full, url, "CacheStorageIsFull"))
    assert not list(cache.downloads.glob("*/tiny.gguf"))
    server.trick(PATH, Trick(cut_at=5000), Trick())
    refused(cache, url, "DownloadInterrupted")
    assert fetch(full, url).read_bytes() == BODY  # there is room for what is left


def test_the_disk_is_full(server: FileServer, cache: ModelCache) -> None:
    """The system refuses to make a file any longer, which it does to root, too. What there is of it stays."""
    url = server.put(PATH, BODY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        refused(cache, url, "CacheStorageIsFull")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fetch(cache, url).read_bytes() == BODY
    assert server.gets(PATH)[1]["range"] == "bytes=200000-"


@pytest.mark.parametrize(
    "where", ["", "downloaded-models", "downloaded-models/folder", "downloaded-models/folder/lock"]
)
def test_a_cache_that_cannot_be_written(server: FileServer, cache: ModelCache, where: str) -> None:
    """What is in the way hinders root, too, who may write everywhere."""
    url = server.put(PATH, BODY)
    blocked = cache.root / where.replace("folder", folder_name(parts_of(url)))
    blocked.parent.mkdir(parents=True, exist_ok=True)
    if where.endswith("lock"):
        blocked.mkdir()
    else:
        blocked.touch()
    assert str(blocked.parent) in str(refused(cache, url, "CacheDirectoryIsNotWritable"))


def test_another_agent_downloads(server: FileServer, cache: ModelCache) -> None:
    """It is told so at once, and then uses the other's file."""
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(stalls_at=100_000))
    has_begun = threading.Event()
    paths: list[Path] = []

    def tell(done: int, _total: int | None, _name: str) -> None:
        if done:
            has_begun.set()

    def first() -> None:
        paths.extend(fetch_url(url, None, cache, tell))

    thread = threading.Thread(target=first)
    thread.start()
    assert has_begun.wait(10)
    error = refused(cache, url, "CacheCannotAcquireLock")
    assert error.course is Course.WAITS_FOR_OTHER
    assert error.lock_path.endswith("/lock")
    server.go_on.set()
    thread.join(10)
    assert paths == [fetch(cache, url)]
    assert paths[0].read_bytes() == BODY
    assert len(server.gets(PATH)) == 1


def test_two_processes_at_once(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(stalls_at=100_000))
    command = [sys.executable, "-c", PERSISTENT, str(cache.root), url, DIGEST]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        # One of them has the lock, and the other says so, whichever is first.
        ready, _, _ = select.select([one.stdout for one in processes if one.stdout], [], [], WAIT_S)
        assert len(ready) == 1
        server.go_on.set()
        said = [one.communicate(timeout=WAIT_S)[0] for one in processes]
    finally:
        for one in processes:
            one.kill()
            one.wait()
    assert sorted(said) == ["", "CacheCannotAcquireLock\n"]
    assert [one.returncode for one in processes] == [0, 0]
    assert len(server.gets(PATH)) == 1
    assert fetch(cache, url).read_bytes() == BODY


def test_downloads_that_nobody_goes_on_with(server: FileServer, cache: ModelCache) -> None:
    names = ("old", "older", "new")
    urls = {name: server.put(f"/{name}.gguf", BODY) for name in names}
    for name, url in urls.items():
        server.trick(f"/{name}.gguf", Trick(cut_at=5000), Trick())
        refused(cache, url, "DownloadInterrupted")
    for name in ("old", "older"):
        os.utime(partial_of(cache, urls[name]), (0, 0))
    fetch(cache, urls["old"])  # which goes on with its own
    assert [one.get("range") for one in server.gets("/old.gguf")] == [None, "bytes=5000-"]
    assert sorted(one.name for one in cache.downloads.glob("*/*.partial*")) == [
        "new.gguf.partial",
        "new.gguf.partial.json",
    ]
