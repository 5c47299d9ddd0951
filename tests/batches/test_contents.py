"""Contents in Redis and in a directory keep the same promises."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from paddler.batches.contents import CHUNK, Contents, RedisContents
from paddler.batches.files import Files
from paddler.batches.folder import UNFINISHED_S, FolderContents
from paddler.clock import SystemClock
from paddler.errors import BodyTooLarge, FileElsewhere, FileNotFound, StorageFull
from paddler.ids import new_file_id
from paddler.store.client import Store
from paddler.store.keys import FileKeys

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()
DATA = bytes(range(256)) * (CHUNK // 256) + b"and more" * 1000
DAY_S = 86_400


@pytest.fixture(params=["redis", "folder"])
def contents(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Contents:
    return RedisContents(store) if request.param == "redis" else FolderContents(tmp_path, store.prefix, CLOCK)


async def read(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize("size", [1000, CHUNK - 1, CHUNK, len(DATA)])
async def test_what_is_written_is_read(contents: Contents, size: int) -> None:
    file_id = new_file_id()
    for at in range(0, len(DATA), size):
        await contents.write(file_id, at, DATA[at : at + size], DAY_S)
    await contents.sync(file_id)
    await contents.seal(file_id, len(DATA), DAY_S)
    assert await read(contents.read(file_id, len(DATA))) == DATA


async def test_whoever_goes_on_writes_over_what_does_not_count(contents: Contents) -> None:
    file_id = new_file_id()
    await contents.write(file_id, 0, DATA, DAY_S)
    await contents.write(file_id, CHUNK - 3, b"another", DAY_S)
    size = CHUNK + 4
    await contents.seal(file_id, size, DAY_S)
    await contents.seal(file_id, size, DAY_S)
    assert await read(contents.read(file_id, size)) == DATA[: CHUNK - 3] + b"another"


async def test_what_is_gone_is_said_to_be(contents: Contents) -> None:
    file_id = new_file_id()
    with pytest.raises(FileNotFound):
        await read(contents.read(file_id, 5))
    with pytest.raises(FileNotFound):
        await contents.seal(file_id, 5, DAY_S)
    await contents.write(file_id, 0, b"four", DAY_S)
    await contents.seal(file_id, 4, DAY_S)
    with pytest.raises(FileNotFound):
        await read(contents.read(file_id, 5))
    await contents.delete(file_id, 4)
    with pytest.raises(FileNotFound):
        await read(contents.read(file_id, 4))


async def test_what_an_upload_left_behind_goes_away(store: Store, tmp_path: Path) -> None:
    file_id = new_file_id()
    await RedisContents(store).write(file_id, 0, DATA, 3600)
    keys = FileKeys(store.prefix)
    assert [0 < await store.redis.ttl(keys.chunk(file_id, number)) <= 3600 for number in (0, 1)] == [True, True]

    folder = FolderContents(tmp_path, store.prefix, CLOCK)
    await folder.write(file_id, 0, b"old", 3600)
    await folder.write(new_file_id(), 0, b"new", 3600)
    (old,) = tmp_path.rglob(f"{file_id}.part")
    long_ago = CLOCK.wall() - UNFINISHED_S - 1
    os.utime(old, (long_ago, long_ago))
    await folder.delete_unfinished()
    assert [path.read_bytes() for path in tmp_path.rglob("*.part")] == [b"new"]


async def test_what_is_written_and_sealed_again_counts(contents: Contents) -> None:
    """Redis had lost its tail: lines were done again, in another order."""
    file_id = new_file_id()
    for data in (b"first and longer", b"second"):
        await contents.write(file_id, 0, data, DAY_S)
        await contents.seal(file_id, len(data), DAY_S)
    assert await read(contents.read(file_id, 6)) == b"second"


async def test_a_file_that_nobody_added_goes_away(store: Store, tmp_path: Path) -> None:
    folder = FolderContents(tmp_path, store.prefix, CLOCK)
    files = Files(store, folder, CLOCK)
    kept, orphan, new = await upload(files, b"kept"), new_file_id(), new_file_id()
    for file_id in (orphan, new):
        await folder.write(file_id, 0, b"x", DAY_S)
        await folder.seal(file_id, 1, DAY_S)
    long_ago = CLOCK.wall() - UNFINISHED_S - 1
    for file_id in (kept, orphan):
        os.utime(next(tmp_path.rglob(file_id)), (long_ago, long_ago))
    await files.purge_once()
    assert {path.name for path in tmp_path.rglob("file-*")} == {kept, new}


async def upload(files: Files, data: bytes, piece: int = 1000) -> str:
    upload = await files.begin()
    for at in range(0, len(data), piece):
        await upload.write(data[at : at + piece])
    return (await files.finish(upload, filename="a", purpose="batch", lifetime_s=3600)).id


async def test_an_upload_is_a_file_once_it_is_whole(store: Store, contents: Contents) -> None:
    files = Files(store, contents, CLOCK)
    begun = await files.begin()
    await begun.write(DATA)
    with pytest.raises(FileNotFound):
        await files.get(begun.file_id)
    await begun.abort()
    file_id = await upload(files, DATA)
    record = await files.get(file_id)
    assert record.num_bytes == len(DATA)
    assert await read(files.read(record)) == DATA
    await files.delete(file_id)
    with pytest.raises(FileNotFound):
        await read(contents.read(file_id, len(DATA)))


async def test_files_have_bounds(store: Store, contents: Contents) -> None:
    files = Files(store, contents, CLOCK, max_file=1000, max_stored=2500)
    with pytest.raises(BodyTooLarge):
        await upload(files, b"x" * 1001, 500)
    kept = [await upload(files, b"x" * 1000) for _ in range(2)]
    with pytest.raises(StorageFull):
        await upload(files, b"x" * 501)
    await files.delete(kept[0])
    await upload(files, b"x" * 501)


async def test_an_expired_file_is_forgotten(
    store: Store, contents: Contents, tmp_path: Path, check_leaks: Callable[[str, str], None]
) -> None:
    files = Files(store, contents, CLOCK)
    file_id, kept = await upload(files, DATA), await upload(files, b"kept")
    await store.redis.delete(FileKeys(store.prefix).file(file_id))  # what its TTL does
    await files.purge_once()
    page = await files.list(limit=10, newest_first=True)
    assert [record.id for record in page.items] == [kept]
    assert list(tmp_path.rglob(file_id)) == []
    assert await read(files.read(page.items[0])) == b"kept"


async def test_a_process_with_another_store_says_so(store: Store, tmp_path: Path) -> None:
    file_id = await upload(Files(store, RedisContents(store), CLOCK), b"here")
    other = Files(store, FolderContents(tmp_path, store.prefix, CLOCK), CLOCK)
    with pytest.raises(FileElsewhere, match="--file-store file:///"):
        other.read(await other.get(file_id))
