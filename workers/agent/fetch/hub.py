"""`HuggingFace`: a model from a repository, in the cache that `huggingface_hub` shares with other programs of a host.

The library downloads, resumes within a try and keeps the cache's layout. What it would do without a word is done before
it is asked: a lock that another process holds, a disk that is too small, a server that is away.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

# Of downloads by Xet the library tells roughly how far they are, and they cannot be stopped.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

import huggingface_hub
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import HfFileMetadata, repo_folder_name
from huggingface_hub.utils import logging as hub_logging

from paddler.desired.schema import HuggingFaceReference
from workers.agent.fetch.cache import ModelCache, Progress, check_room, locked, make_folder, telling_of_disk
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.hub_errors import name_of, telling_of_hub
from workers.agent.fetch.tokens import read_token
from workers.agent.fetch.totals import Totals
from workers.agent.shards import shards_of

_hub: Any = huggingface_hub
"""Types of some of its functions are left open."""

# Its warnings name URLs with their signatures; what they tell of, we tell.
hub_logging.set_verbosity_error()


def fetch_from_hub(wanted: HuggingFaceReference, cache: ModelCache, report: Progress) -> tuple[Path, ...]:
    """The files of the model, all of one commit. Raises `FetchError`, and whatever `report` does."""
    names = _names_of(wanted)
    folder = cache.hub or Path(constants.HF_HUB_CACHE)
    with telling_of_hub(wanted):
        found = _in_cache(wanted, names, folder)
        return found or _download(wanted, names, folder, cache, report)


def _names_of(wanted: HuggingFaceReference) -> list[str]:
    """Of the files in the repository."""
    path = PurePosixPath(wanted.filename)
    for one in (path, PurePosixPath(wanted.revision)):
        if one.is_absolute() or ".." in one.parts:
            raise FetchError("HuggingFaceModelDoesNotExist", f"{str(one)!r} leads out of the repository")
    return [str(shard) for shard in shards_of(Path(path))]


def _in_cache(wanted: HuggingFaceReference, names: list[str], folder: Path) -> tuple[Path, ...]:
    """Empty unless all of it is there."""
    first = _cached(wanted.repo_id, names[0], wanted.revision, folder)
    if first is None:
        return ()
    commit = _commit_of(first, names[0])
    rest = [_cached(wanted.repo_id, name, commit, folder) for name in names[1:]]
    return (first, *(one for one in rest if one is not None)) if None not in rest else ()


def _cached(repo_id: str, name: str, revision: str, folder: Path) -> Path | None:
    # It may also say that the cache knows of no such file; there may be one by now.
    found = try_to_load_from_cache(repo_id, name, cache_dir=folder, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _commit_of(path: Path, name: str) -> str:
    """`snapshots/<commit>/<name>`."""
    return path.parents[len(PurePosixPath(name).parts) - 1].name


def _download(
    wanted: HuggingFaceReference, names: list[str], folder: Path, cache: ModelCache, report: Progress
) -> tuple[Path, ...]:
    token = read_token(cache.hub_token_file, "HuggingFacePermissions") if cache.hub_token_file else None
    how: Mapping[str, Any] = {"endpoint": cache.hub_endpoint, "token": token}
    totals = Totals(names, report)
    missing: dict[str, HfFileMetadata] = {}
    revision = wanted.revision
    for name in names:
        url = hf_hub_url(wanted.repo_id, name, revision=revision, endpoint=cache.hub_endpoint)
        head: HfFileMetadata = _hub.get_hf_file_metadata(url, timeout=cache.timeout_s, **how)
        if head.commit_hash is None or head.etag is None or head.size is None:
            what = f"{name_of(wanted)}: what answers does not speak as Hugging Face does ({url})"
            raise FetchError("DownloadServerErrored", what)
        # A branch may move on while its files are fetched one by one.
        revision = head.commit_hash
        found = _cached(wanted.repo_id, name, revision, folder)
        if found is None:
            missing[name] = head
            totals.expect(name, head.size)
        else:
            totals.finish(name, found.stat().st_size)
    locks = folder / ".locks" / repo_folder_name(repo_id=wanted.repo_id, repo_type="model")
    make_folder(locks)
    check_room(cache, folder, sum(one.size or 0 for one in missing.values()))
    for one in missing.values():
        # The library would wait for it in silence. It takes the lock anew, so it may wait all the same, but not often.
        with locked(locks / f"{one.etag}.lock", "HuggingFaceCannotAcquireLock"):
            pass
    files: list[Path] = []
    for name in names:
        # The first by its branch or tag, so that the cache knows which commit that was.
        at = wanted.revision if name == names[0] else _commit_of(files[0], names[0])
        bar = partial(_Bar, partial(totals.tell, name))
        with telling_of_disk(folder):
            path: str = _hub.hf_hub_download(
                wanted.repo_id,
                name,
                revision=at,
                cache_dir=folder,
                etag_timeout=cache.timeout_s,
                tqdm_class=bar,  # of a progress bar it uses what `_Bar` has
                **how,
            )
        files.append(Path(path))
        totals.finish(name, files[-1].stat().st_size)
    return tuple(files)


class _Bar:
    """What the library takes for a progress bar."""

    def __init__(self, tell: Any, *, total: int | None = None, initial: int = 0, **_: Any) -> None:
        self._tell = tell
        self.total = total
        self.n = initial
        self.update(0)

    def update(self, n: float | None = 1) -> None:
        self.n += int(n or 0)
        self._tell(self.n, self.total)

    def update_transfer(self, _n: float) -> None:
        """Bytes that came over the network; what counts is what was written."""

    def set_postfix_str(self, *_: Any, **__: Any) -> None:
        """A speed, in words."""

    set_transfer_postfix_str = set_postfix_str

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass
