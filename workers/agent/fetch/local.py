"""`LocalToAgent`: a path on the agent's machine."""

from __future__ import annotations

from pathlib import Path

from workers.agent.fetch.errors import FetchError
from workers.agent.shards import shards_of


def local_files(path: Path) -> tuple[Path, ...]:
    """All files of the model, in their order. Raises `FetchError` (`ModelFileDoesNotExist`) unless each can be read."""
    files = shards_of(path)
    for file in files:
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            part = "" if len(files) == 1 else f", one of the {len(files)} files of the model"
            raise FetchError("ModelFileDoesNotExist", f"{file} cannot be read{part}: {error.strerror}") from error
    return files
