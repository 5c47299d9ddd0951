"""A resolution with its tries: what is told meanwhile, when it is tried again, and when no more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fetch_calls import BODY, PATH
from file_server import FileServer, Trick

from paddler.clock import SystemClock
from paddler.desired.schema import GivenModel, UrlReference
from paddler.testing.waiting import wait_until
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.manager import Fetching

pytestmark = pytest.mark.anyio


class Hurry(SystemClock):
    """Sleeps are noted and over at once."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def fetching(cache: ModelCache, url: str, clock: Hurry | None = None) -> Fetching:
    model = GivenModel(Url=UrlReference(url=url))
    return Fetching(model, cache, clock or Hurry(), chance=lambda: 1.0)


async def test_it_goes_on_until_the_file_is_there(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    bad = Trick(status=503)
    server.trick(PATH, bad, bad, bad, Trick(status=429, headers={"Retry-After": "50"}), Trick(cut_at=150_000), Trick())
    clock = Hurry()
    one = fetching(cache, url, clock)
    [path] = await one.run()
    assert path.read_bytes() == BODY
    assert clock.slept == pytest.approx([1, 2, 4, 55, 1])  # 5xx and 429 are tried again in the same way
    assert (one.issue, one.retry_at) == (None, None)
    assert one.snapshot() == {
        "download_current": 0,
        "download_total": 0,
        "download_filename": "",
        "download_indeterminate": 0,
    }


async def test_a_download_that_gets_further_is_tried_again_soon(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    cuts = [Trick(cut_at=60_000) for _ in range(4)]
    server.trick(PATH, *cuts, Trick(cut_at=0), Trick(cut_at=0), Trick())
    clock = Hurry()
    await fetching(cache, url, clock).run()
    assert clock.slept == [1, 1, 1, 1, 2, 4]


async def test_what_makes_no_sense_to_try_again_is_not(server: FileServer, cache: ModelCache) -> None:
    server.trick(PATH, Trick(status=404))
    clock = Hurry()
    one = fetching(cache, f"{server.url(PATH)}?signature=secret", clock)
    with pytest.raises(FetchError):
        await one.run()
    assert clock.slept == []
    assert one.issue is not None
    assert (one.issue.kind, one.issue.model_path) == ("ModelDoesNotExistAtUrl", server.url(PATH))
    assert "does not try again" in one.issue.action


async def test_a_wrong_checksum_is_tried_three_times(server: FileServer, cache: ModelCache) -> None:
    model = GivenModel(Url=UrlReference(url=server.put(PATH, BODY), sha256="0" * 64))
    with pytest.raises(FetchError):
        await Fetching(model, cache, Hurry()).run()
    assert len(server.gets(PATH)) == 3


async def test_an_issue_is_over_when_the_next_try_gets_anywhere(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(status=503), Trick(stalls_at=70_000))
    one = Fetching(GivenModel(Url=UrlReference(url=url)), cache, SystemClock(), chance=lambda: 0.0)
    task = asyncio.create_task(one.run())
    await wait_until(lambda: one.issue is not None and one.retry_at is not None)
    assert one.issue is not None
    assert one.issue.kind == "DownloadServerErrored"
    await wait_until(lambda: one.progress.done >= 65_536)
    assert (one.issue, one.retry_at) == (None, None)
    server.go_on.set()
    assert await task


async def test_progress_is_told_and_a_download_can_be_cancelled(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(stalls_at=131_072), Trick())
    one = fetching(cache, url)
    task = asyncio.create_task(one.run())

    async def has_come() -> bool:
        return one.progress.done >= 100_000

    await wait_until(has_come)
    told = one.snapshot()
    assert told["download_total"] == len(BODY)
    assert (told["download_filename"], told["download_indeterminate"]) == ("tiny.gguf", 0)
    task.cancel()
    await asyncio.wait({task})
    server.go_on.set()  # with the next bytes the thread ends, and gives the lock up
    other = Fetching(GivenModel(Url=UrlReference(url=url)), cache, SystemClock(), chance=lambda: 0.0)
    [path] = await other.run()
    assert path.read_bytes() == BODY
    assert "range" in server.gets(PATH)[1]


async def test_a_local_file_is_waited_for(cache: ModelCache, tmp_path: Path) -> None:
    files = [tmp_path / f"m-0000{one}-of-00002.gguf" for one in (1, 2)]
    files[0].write_bytes(b"GGUF")
    one = Fetching(GivenModel(LocalToAgent=str(files[1])), cache, SystemClock(), chance=lambda: 0.0)
    task = asyncio.create_task(one.run())
    await wait_until(lambda: one.issue is not None)
    assert one.issue is not None
    assert one.issue.kind == "ModelFileDoesNotExist"
    assert str(files[1]) in one.issue.detail
    files[1].write_bytes(b"GGUF")
    assert await task == tuple(files)


async def test_a_size_that_nobody_knows(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(is_chunked=True, cut_at=100_000), Trick(hangs=True))
    one = fetching(cache, url)
    task = asyncio.create_task(one.run())
    await wait_until(lambda: one.issue is not None)
    assert (one.snapshot()["download_indeterminate"], one.snapshot()["download_total"]) == (1, 0)
    task.cancel()
    await asyncio.wait({task})
