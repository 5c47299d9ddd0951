"""Models from a web server that is slow, breaks off, lies or refuses: what the cache has then, and which issue."""

from __future__ import annotations

import hashlib
import json
import random
import socket
from pathlib import Path

import pytest
from fetch_calls import BODY, DIGEST, PATH, fetch, ignore, refused
from file_server import FileServer, Trick

from paddler.issues import IssueKind
from paddler.remedies import Course
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError, Stopped
from workers.agent.fetch.url import fetch_url


def test_a_file_comes_once(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    told: list[tuple[int, int | None, str]] = []
    [path] = fetch_url(url, DIGEST.upper(), cache, lambda done, total, name: told.append((done, total, name)))
    assert path == cache.root / "downloaded-models" / hashlib.sha256(url.encode()).hexdigest() / "tiny.gguf"
    assert path.read_bytes() == BODY
    assert told[0] == (0, len(BODY), "tiny.gguf")
    assert told[-1] == (len(BODY), len(BODY), "tiny.gguf")
    assert [one[0] for one in told] == sorted(one[0] for one in told)
    assert sorted(one.name for one in path.parent.iterdir()) == ["lock", "tiny.gguf", "tiny.gguf.json"]
    assert fetch(cache, url) == fetch(cache, url, DIGEST) == path
    assert len(server.seen) == 1


def test_what_is_there_needs_no_server_and_no_right_to_write(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    path = fetch(cache, url)
    (path.parent / "lock").unlink()
    server.__exit__()
    assert fetch(cache, url) == path
    assert not (path.parent / "lock").exists()


@pytest.mark.parametrize("cut_at", [0, 3, 100_000, len(BODY) - 1])
def test_a_download_that_breaks_off_goes_on_from_there(server: FileServer, cache: ModelCache, cut_at: int) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(cut_at=cut_at), Trick())
    refused(cache, url, "DownloadInterrupted")
    assert not list(cache.downloads.glob("*/tiny.gguf"))
    assert fetch(cache, url).read_bytes() == BODY
    asked = server.gets(PATH)[1]
    assert asked.get("range") == (f"bytes={cut_at}-" if cut_at else None)
    assert ("if-range" in asked) == bool(cut_at)


def test_a_date_will_do_where_there_is_no_etag(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY, etag=None, modified="Tue, 01 Sep 2026 10:00:00 GMT")
    server.trick(PATH, Trick(cut_at=5000), Trick())
    refused(cache, url, "DownloadInterrupted")
    assert fetch(cache, url).read_bytes() == BODY
    assert server.gets(PATH)[1]["if-range"] == "Tue, 01 Sep 2026 10:00:00 GMT"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_what_cannot_be_compared_begins_anew(server: FileServer, cache: ModelCache, etag: str | None) -> None:
    url = server.put(PATH, BODY, etag=etag)
    server.trick(PATH, Trick(cut_at=5000), Trick())
    refused(cache, url, "DownloadInterrupted")
    assert fetch(cache, url).read_bytes() == BODY
    assert "range" not in server.gets(PATH)[1]


@pytest.mark.parametrize("second", [Trick(), Trick(ignores_range=True), Trick(ignores_if_range=True)])
def test_versions_are_never_mixed(server: FileServer, cache: ModelCache, second: Trick) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(cut_at=5000), second)
    refused(cache, url, "DownloadInterrupted")
    other = b"GGUF" + random.Random(2).randbytes(200_000)
    server.put(PATH, other)
    assert fetch(cache, url).read_bytes() == other


def test_a_shorter_version_is_asked_for_as_a_whole(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(cut_at=5000), Trick(ignores_if_range=True))
    refused(cache, url, "DownloadInterrupted")
    server.put(PATH, BODY[:2000])  # 416: there is nothing behind the 5,000th byte
    assert fetch(cache, url).read_bytes() == BODY[:2000]
    assert [one.get("range") for one in server.gets(PATH)] == [None, "bytes=5000-", None]


def test_a_range_that_is_not_the_one_asked_for(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(cut_at=5000), Trick(content_range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}"), Trick())
    refused(cache, url, "DownloadInterrupted")
    assert fetch(cache, url).read_bytes() == BODY


def test_ranges_may_come_piece_by_piece(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(cut_at=5000), Trick(most=100_000))
    refused(cache, url, "DownloadInterrupted")
    assert fetch(cache, url).read_bytes() == BODY
    assert len(server.gets(PATH)) == 4


def test_a_server_that_never_says_the_same_is_not_asked_for_ever(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    lie = Trick(content_range="bytes 1-2/3")
    server.trick(PATH, Trick(cut_at=5000), lie, Trick(cut_at=5000), lie)
    for _ in range(2):
        refused(cache, url, "DownloadInterrupted")
    assert len(server.gets(PATH)) == 3


def test_a_body_shorter_than_was_said(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(claims=len(BODY) + 10))
    refused(cache, url, "DownloadInterrupted")
    assert not list(cache.downloads.glob("*/tiny.gguf"))


def test_what_is_sent_beyond_the_length_is_not_the_file(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(surplus=b"more"))
    assert fetch(cache, url, DIGEST).read_bytes() == BODY


def test_a_rest_longer_than_was_said(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(cut_at=5000), Trick(surplus=b"more", is_chunked=True), Trick())
    refused(cache, url, "DownloadInterrupted")
    assert "more than" in str(refused(cache, url, "DownloadInterrupted"))
    assert fetch(cache, url).read_bytes() == BODY
    assert "range" not in server.gets(PATH)[2]


@pytest.mark.parametrize("trick", [Trick(is_chunked=True), Trick(has_length=False), Trick(is_zipped=True)])
def test_a_size_that_nobody_knows(server: FileServer, cache: ModelCache, trick: Trick) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, trick)
    told: list[int | None] = []
    [path] = fetch_url(url, None, cache, lambda _done, total, _name: told.append(total))
    assert path.read_bytes() == BODY
    assert set(told) == {None}
    assert json.loads(Path(f"{path}.json").read_bytes())["size"] == len(BODY)


def test_a_chunked_body_that_breaks_off(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(is_chunked=True, cut_at=70_000))
    refused(cache, url, "DownloadInterrupted")


@pytest.mark.parametrize(
    ("status", "headers", "kind", "course", "asked_s"),
    [
        (401, {}, "DownloadServerDeniedAccess", Course.RETRIES_SELDOM, None),
        (403, {}, "DownloadServerDeniedAccess", Course.RETRIES_SELDOM, None),
        (404, {}, "ModelDoesNotExistAtUrl", Course.GIVES_UP, None),
        (410, {}, "ModelDoesNotExistAtUrl", Course.GIVES_UP, None),
        (416, {}, "DownloadServerRejectedRequest", Course.GIVES_UP, None),
        (418, {}, "DownloadServerRejectedRequest", Course.GIVES_UP, None),
        (429, {"Retry-After": "7"}, "DownloadServerRejectedRequest", Course.RETRIES, 7.0),
        (500, {}, "DownloadServerErrored", Course.RETRIES, None),
        (503, {"Retry-After": "120"}, "DownloadServerErrored", Course.RETRIES, 120.0),
        (204, {}, "DownloadServerErrored", Course.RETRIES, None),
        (206, {"Content-Range": "bytes 0-1/2"}, "DownloadServerErrored", Course.RETRIES, None),
        (302, {"Location": PATH}, "DownloadServerRejectedRequest", Course.GIVES_UP, None),
        (302, {"Location": "ftp://127.0.0.1/x"}, "DownloadServerRejectedRequest", Course.GIVES_UP, None),
    ],
)
def test_refusals(
    server: FileServer,
    cache: ModelCache,
    status: int,
    headers: dict[str, str],
    kind: IssueKind,
    course: Course,
    asked_s: float | None,
) -> None:
    url = server.put(PATH, BODY)
    server.trick(PATH, Trick(status=status, headers=headers))
    error = refused(cache, url, kind)
    assert (error.course, error.asked_s) == (course, asked_s)
    assert url in str(error)
    assert not list(cache.downloads.glob("*/tiny.gguf*"))


def test_redirects_are_followed(server: FileServer, cache: ModelCache) -> None:
    server.put("/elsewhere", BODY)
    server.put("/here.gguf", b"")
    server.trick("/here.gguf", Trick(status=302, headers={"Location": "/elsewhere"}))
    assert fetch(cache, server.url("/here.gguf")).name == "here.gguf"


@pytest.mark.parametrize("body", [b"<!doctype html><title>Log in</title>", b"GG", b""])
def test_a_page_is_no_model(server: FileServer, cache: ModelCache, body: bytes) -> None:
    url = server.put(PATH, body)
    error = refused(cache, url, "ModelCannotBeLoaded")
    assert error.course is Course.GIVES_UP
    assert "no GGUF" in str(error)
    refused(cache, url, "ModelCannotBeLoaded")
    assert not list(cache.downloads.glob("*/tiny.gguf"))


def test_nobody_listens(cache: ModelCache) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = refused(cache, f"http://127.0.0.1:{taken.getsockname()[1]}/x.gguf", "DownloadServerIsUnreachable")
    assert error.course is Course.RETRIES


def test_a_server_that_hangs(server: FileServer, cache: ModelCache, tmp_path: Path) -> None:
    url = server.put(PATH, BODY)
    hasty = ModelCache(root=cache.root, spare_bytes=0, timeout_s=0.3)
    server.trick(PATH, Trick(hangs=True), Trick(stalls_at=70_000), Trick())
    assert "does not answer" in str(refused(hasty, url, "DownloadServerIsUnreachable"))
    refused(hasty, url, "DownloadInterrupted")
    assert fetch(cache, url).read_bytes() == BODY
    assert server.gets(PATH)[-1]["range"].startswith("bytes=")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "nonsense", "http://", "http://[::1/x", "http://h:99999/x"])
def test_no_urls(cache: ModelCache, url: str) -> None:
    assert refused(cache, url, "DownloadUrlIsMalformed").course is Course.GIVES_UP


def test_secrets_are_not_shown(server: FileServer, cache: ModelCache) -> None:
    url = f"http://me:secret@{server.host}/x.gguf?signature=secret"
    error = refused(cache, url, "ModelDoesNotExistAtUrl")
    assert "secret" not in str(error)


def test_tokens_go_to_their_host_alone(server: FileServer, cache: ModelCache, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    own = ModelCache(root=cache.root, spare_bytes=0, token_files={server.host: token})
    with FileServer() as other:
        url = other.put(PATH, BODY)
        server.put(PATH, BODY)
        server.trick(PATH, Trick(status=302, headers={"Location": url}))
        fetch(own, server.url(PATH))
        fetch(own, url)
        assert server.gets(PATH)[0]["authorization"] == "Bearer one"
        assert ["authorization" in one for one in other.gets(PATH)] == [False, False]
    token.write_text("two")
    server.trick("/new.gguf", Trick(status=401))
    refused(own, server.url("/new.gguf"), "DownloadServerDeniedAccess")
    assert server.gets("/new.gguf")[0]["authorization"] == "Bearer two"
    token.unlink()
    assert "token" in str(refused(own, server.url("/newer.gguf"), "DownloadServerDeniedAccess"))


def test_all_files_of_a_split_model(server: FileServer, cache: ModelCache) -> None:
    paths = [f"/m/big-0000{one}-of-00003.gguf" for one in (1, 2, 3)]
    bodies = [b"GGUF" + bytes([one]) * 1000 * one for one in (1, 2, 3)]
    urls = [server.put(path, body) for path, body in zip(paths, bodies, strict=True)]
    server.trick(paths[1], Trick(), Trick(cut_at=500), Trick())
    told: list[tuple[int, int | None, str]] = []
    with pytest.raises(FetchError) as caught:
        fetch_url(urls[1], None, cache, ignore)
    assert caught.value.kind == "DownloadInterrupted"
    files = fetch_url(urls[0], None, cache, lambda done, total, name: told.append((done, total, name)))
    assert [file.read_bytes() for file in files] == bodies
    assert len({file.parent for file in files}) == 1
    assert [file.name for file in files] == [path[3:] for path in paths]
    assert told[0] == (1004 + 500, sum(map(len, bodies)), "big-00002-of-00003.gguf")
    assert told[-1] == (sum(map(len, bodies)), sum(map(len, bodies)), "big-00003-of-00003.gguf")
    assert len(server.gets(paths[0])) == 1
    assert fetch_url(urls[2], hashlib.sha256(bodies[2]).hexdigest(), cache, ignore) == files


def test_room_for_all_files_or_none(server: FileServer, cache: ModelCache) -> None:
    paths = [f"/m/big-0000{one}-of-00003.gguf" for one in (1, 2, 3)]
    urls = [server.put(path, b"GGUF" * 100) for path in paths]
    full = ModelCache(root=cache.root, spare_bytes=0, free_bytes=lambda _: 1199)
    with pytest.raises(FetchError) as caught:
        fetch_url(urls[0], None, full, ignore)
    assert caught.value.kind == "CacheStorageIsFull"
    assert server.gets(paths[0]) == []


def test_a_shard_that_is_not_there(server: FileServer, cache: ModelCache) -> None:
    url = server.put("/m/big-00001-of-00002.gguf", BODY)
    with pytest.raises(FetchError) as caught:
        fetch_url(url, None, cache, ignore)
    assert caught.value.kind == "ModelDoesNotExistAtUrl"
    assert "00002-of-00002" in str(caught.value)


def test_whoever_asks_can_stop_it(server: FileServer, cache: ModelCache) -> None:
    url = server.put(PATH, BODY)

    def stop(done: int, _total: int | None, _name: str) -> None:
        if done > 100_000:
            raise Stopped

    with pytest.raises(Stopped):
        fetch_url(url, None, cache, stop)
    assert fetch(cache, url).read_bytes() == BODY
    assert server.gets(PATH)[1]["range"].startswith("bytes=")
