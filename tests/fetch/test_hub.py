"""Models from Hugging Face, by its own library, from a server that speaks like it."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch_calls import ignore
from file_server import FileServer, Trick
from filelock import FileLock
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE
from huggingface_hub.utils import close_session

from paddler.desired.schema import HuggingFaceReference
from paddler.issues import IssueKind
from paddler.remedies import Course
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError, Stopped
from workers.agent.fetch.hub import fetch_from_hub
from workers.agent.fetch.hub_errors import telling_of_hub

REPO = "someone/some-model"
FILE = "small/tiny.gguf"
BODY = b"GGUF" + random.Random(3).randbytes(300_000)
COMMITS = ("a" * 40, "b" * 40)


class Hub:
    def __init__(self, server: FileServer) -> None:
        self.server = server

    def path(self, revision: str = "main", name: str = FILE) -> str:
        return f"/{REPO}/resolve/{revision}/{name}"

    def put(self, body: bytes = BODY, *, revision: str = "main", commit: str = COMMITS[0], name: str = FILE) -> str:
        """Returns the ETag, which is the name of the lock, too."""
        etag = hashlib.sha256(body).hexdigest()
        for one in (revision, commit):
            self.server.put(self.path(one, name), body, etag=f'"{etag}"', headers={"X-Repo-Commit": commit})
        return etag


@pytest.fixture
def hub(server: FileServer) -> Iterator[Hub]:
    yield Hub(server)
    close_session()  # its connections would wait for the next call


@pytest.fixture
def own(server: FileServer, tmp_path: Path) -> ModelCache:
    endpoint = server.url("").rstrip("/")
    return ModelCache(root=tmp_path / "cache", spare_bytes=0, hub=tmp_path / "hub", hub_endpoint=endpoint)


def reference(revision: str = "main", name: str = FILE) -> HuggingFaceReference:
    return HuggingFaceReference(repo_id=REPO, filename=name, revision=revision)


def refused(own: ModelCache, kind: IssueKind, wanted: HuggingFaceReference | None = None) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch_from_hub(wanted or reference(), own, ignore)
    assert caught.value.kind == kind, caught.value
    return caught.value


def test_a_file_comes_once_and_needs_no_network_then(hub: Hub, own: ModelCache) -> None:
    hub.put()
    told: list[tuple[int, int | None, str]] = []
    [path] = fetch_from_hub(reference(), own, lambda done, total, name: told.append((done, total, name)))
    assert path.read_bytes() == BODY
    assert path.name == "tiny.gguf"
    assert told[0] == (0, len(BODY), FILE)
    assert told[-1] == (len(BODY), len(BODY), FILE)
    hub.server.__exit__()
    assert fetch_from_hub(reference(), own, ignore) == (path,)
    assert fetch_from_hub(reference(COMMITS[0]), own, ignore) == (path,)


def test_the_revision_counts(hub: Hub, own: ModelCache) -> None:
    other = b"GGUF" + random.Random(4).randbytes(1000)
    hub.put()
    hub.put(other, revision="v2", commit=COMMITS[1])
    for revision, body in (("v2", other), ("main", BODY), (COMMITS[1], other), ("v2", other)):
        [path] = fetch_from_hub(reference(revision), own, ignore)
        assert path.read_bytes() == body


def test_a_file_on_another_host(hub: Hub, own: ModelCache, tmp_path: Path) -> None:
    """As large ones are: the answer leads elsewhere, and the token does not go along."""
    token = tmp_path / "token"
    token.write_text("hf_one")
    mine = ModelCache(root=own.root, spare_bytes=0, hub=own.hub, hub_endpoint=own.hub_endpoint, hub_token_file=token)
    with FileServer() as other:
        headers = {
            "Location": other.put("/blob", BODY),
            "X-Repo-Commit": COMMITS[0],
            "X-Linked-Etag": f'"{hashlib.sha256(BODY).hexdigest()}"',
            "X-Linked-Size": str(len(BODY)),
        }
        hub.server.trick(hub.path(), Trick(status=302, headers=headers))
        [path] = fetch_from_hub(reference(), mine, ignore)
        assert path.read_bytes() == BODY
        assert {one.headers.get("authorization") for one in hub.server.seen} == {"Bearer hf_one"}
        assert {one.headers.get("authorization") for one in other.seen} == {None}
    token.unlink()
    assert "token" in str(refused(mine, "HuggingFacePermissions", reference("v2")))


def test_all_files_of_a_split_model_are_of_one_commit(hub: Hub, own: ModelCache) -> None:
    names = [f"big-0000{one}-of-00002.gguf" for one in (1, 2)]
    bodies = [b"GGUF" + bytes([one]) * 1000 for one in (1, 2)]
    for name, body in zip(names, bodies, strict=True):
        hub.put(body, name=name)
    hub.put(b"GGUF of the next version", name=names[1], commit=COMMITS[1])
    hub.put(bodies[1], name=names[1], revision="elsewhere")
    told: list[tuple[int, int | None]] = []
    files = fetch_from_hub(reference(name=names[1]), own, lambda done, total, _name: told.append((done, total)))
    assert [file.read_bytes() for file in files] == bodies
    assert [file.name for file in files] == names
    assert told[-1] == (2008, 2008)
    hub.server.__exit__()
    assert fetch_from_hub(reference(name=names[0]), own, ignore) == files


@pytest.mark.parametrize(
    ("status", "headers", "kind", "course", "asked_s"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, "HuggingFacePermissions", Course.RETRIES_SELDOM, None),
        (403, {"X-Error-Code": "GatedRepo"}, "HuggingFacePermissions", Course.RETRIES_SELDOM, None),
        (403, {}, "HuggingFacePermissions", Course.RETRIES_SELDOM, None),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "HuggingFacePermissions",
            Course.RETRIES_SELDOM,
            None,
        ),
        (401, {"X-Error-Code": "RepoNotFound"}, "HuggingFaceModelDoesNotExist", Course.GIVES_UP, None),
        (404, {"X-Error-Code": "RepoNotFound"}, "HuggingFaceModelDoesNotExist", Course.GIVES_UP, None),
        (404, {"X-Error-Code": "RevisionNotFound"}, "HuggingFaceModelDoesNotExist", Course.GIVES_UP, None),
        (404, {"X-Error-Code": "EntryNotFound"}, "HuggingFaceModelDoesNotExist", Course.GIVES_UP, None),
        (404, {}, "HuggingFaceModelDoesNotExist", Course.GIVES_UP, None),
        (418, {}, "DownloadServerRejectedRequest", Course.GIVES_UP, None),
        (429, {"Retry-After": "7"}, "DownloadServerRejectedRequest", Course.RETRIES, 7.0),
        (503, {"Retry-After": "9"}, "DownloadServerErrored", Course.RETRIES, 9.0),
        (200, {"ETag": '"x"'}, "DownloadServerErrored", Course.RETRIES, None),
    ],
)
def test_refusals(
    hub: Hub,
    own: ModelCache,
    status: int,
    headers: dict[str, str],
    kind: IssueKind,
    course: Course,
    asked_s: float | None,
) -> None:
    hub.server.trick(hub.path(), Trick(status=status, headers=headers))
    error = refused(own, kind)
    assert (error.course, error.asked_s) == (course, asked_s)
    assert f"{REPO}/{FILE}@main" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(("repo", "name"), [("a/b/c", FILE), ("..", FILE), (REPO, "../x.gguf"), (REPO, "/etc/x.gguf")])
def test_names_that_cannot_be(own: ModelCache, repo: str, name: str) -> None:
    refused(own, "HuggingFaceModelDoesNotExist", HuggingFaceReference(repo_id=repo, filename=name, revision="main"))


def test_nobody_answers(hub: Hub, own: ModelCache, tmp_path: Path) -> None:
    hub.put()
    hub.server.trick(hub.path(), Trick(hangs=True))
    hasty = ModelCache(root=own.root, hub=own.hub, hub_endpoint=own.hub_endpoint, timeout_s=0.3)
    refused(hasty, "DownloadServerIsUnreachable")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        refused(ModelCache(root=own.root, hub=own.hub, hub_endpoint=nobody), "DownloadServerIsUnreachable")


def test_the_network_is_forbidden(hub: Hub, own: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in str(refused(own, "DownloadServerIsUnreachable"))
    assert hub.server.seen == []


def test_errors_of_native_code() -> None:
    with pytest.raises(FetchError, match="no more chunks") as caught, telling_of_hub(reference()):
        raise RuntimeError("no more chunks\nbecause")
    assert caught.value.kind == "DownloadInterrupted"


def test_a_download_that_breaks_off_once(hub: Hub, own: ModelCache) -> None:
    """The library goes on by itself, from the last of its blocks."""
    body = b"GGUF" + bytes(DOWNLOAD_CHUNK_SIZE + 200_000)
    hub.put(body)
    hub.server.trick(hub.path(), Trick(), Trick(), Trick(cut_at=DOWNLOAD_CHUNK_SIZE + 100_000), Trick())
    told: list[int] = []
    [path] = fetch_from_hub(reference(), own, lambda done, _total, _name: told.append(done))
    assert path.read_bytes() == body
    assert [one.get("range") for one in hub.server.gets(hub.path())] == [None, f"bytes={DOWNLOAD_CHUNK_SIZE}-"]
    assert told[-1] == len(body)


def test_another_process_downloads(hub: Hub, own: ModelCache) -> None:
    etag = hub.put()
    assert own.hub is not None
    lock = own.hub / ".locks" / "models--someone--some-model" / f"{etag}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        error = refused(own, "HuggingFaceCannotAcquireLock")
    assert (error.lock_path, error.course) == (str(lock), Course.WAITS_FOR_OTHER)
    fetch_from_hub(reference(), own, ignore)


def test_no_room(hub: Hub, own: ModelCache) -> None:
    hub.put()
    full = ModelCache(
        root=own.root,
        hub=own.hub,
        hub_endpoint=own.hub_endpoint,
        spare_bytes=0,
        free_bytes=lambda _: len(BODY) - 1,
    )
    refused(full, "CacheStorageIsFull")
    assert hub.server.gets(hub.path()) == []


def test_a_cache_that_cannot_be_written(hub: Hub, own: ModelCache) -> None:
    hub.put()
    assert own.hub is not None
    own.hub.touch()
    refused(own, "CacheDirectoryIsNotWritable")


def test_a_repository_folder_that_cannot_be_written(hub: Hub, own: ModelCache) -> None:
    hub.put()
    assert own.hub is not None
    own.hub.mkdir()
    (own.hub / "models--someone--some-model").touch()
    refused(own, "CacheDirectoryIsNotWritable")


def test_whoever_asks_can_stop_it(hub: Hub, own: ModelCache) -> None:
    hub.put()

    def stop(_done: int, _total: int | None, _name: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fetch_from_hub(reference(), own, stop)
    assert own.hub is not None
    assert not list(own.hub.rglob("*.incomplete"))
    fetch_from_hub(reference(), own, ignore)
