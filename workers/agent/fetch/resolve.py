"""The files of a model, wherever the desired state says it comes from."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from paddler.desired.schema import GivenModel
from workers.agent.fetch.addresses import shown
from workers.agent.fetch.cache import ModelCache, Progress
from workers.agent.fetch.errors import Stopped
from workers.agent.fetch.local import local_files
from workers.agent.fetch.url import fetch_url
from workers.agent.passing_thread import in_passing_thread


async def resolve(model: GivenModel, cache: ModelCache, report: Progress) -> tuple[Path, ...]:
    """Of a model in several files all, the first first. What is there already comes at once, without the network.

    Raises `FetchError`. The work is done in a thread, which ends soon after this is cancelled: what has been downloaded
    stays, and the next call goes on from it."""
    stop = threading.Event()

    def tell(done: int, total: int | None, name: str) -> None:
        if stop.is_set():
            raise Stopped
        report(done, total, name)

    try:
        return await in_passing_thread(partial(files_now, model, cache, tell))
    finally:
        stop.set()


def name_of(model: GivenModel) -> str:
    """How a model is called where people read of it."""
    if model.HuggingFace is not None:
        return f"{model.HuggingFace.repo_id}/{model.HuggingFace.filename}@{model.HuggingFace.revision}"
    if model.Url is not None:
        return shown(model.Url.url)
    return model.LocalToAgent or ""


def files_now(model: GivenModel, cache: ModelCache, tell: Progress) -> tuple[Path, ...]:
    """As `resolve`, in the thread of the caller: an exception of `tell` ends it."""
    if model.Url is not None:
        return fetch_url(model.Url.url, model.Url.sha256, cache, tell)
    if model.HuggingFace is not None:
        from workers.agent.fetch.hub import fetch_from_hub  # huggingface_hub takes long to load

        return fetch_from_hub(model.HuggingFace, cache, tell)
    return local_files(Path(model.LocalToAgent or ""))
