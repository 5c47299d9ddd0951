"""What `huggingface_hub` raises, as issues."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from paddler.clock import SystemClock
from paddler.desired.schema import HuggingFaceReference
from paddler.remedies import Course
from workers.agent.fetch.answers import retry_after_s
from workers.agent.fetch.errors import FetchError

_PASSING = (408, 425, 429)


def name_of(wanted: HuggingFaceReference) -> str:
    """How a file of a repository is called where people read of it."""
    return f"{wanted.repo_id}/{wanted.filename}@{wanted.revision}"


@contextlib.contextmanager
def telling_of_hub(wanted: HuggingFaceReference) -> Generator[None]:
    """From the special to the general: the library's errors are also `OSError` or `ValueError`."""
    name = name_of(wanted)
    try:
        yield
    except FetchError:
        raise
    except HfHubHTTPError as error:
        raise _of_answer(name, error) from error
    except OfflineModeIsEnabled as error:
        what = f"{name} is not in the cache, and HF_HUB_OFFLINE forbids to ask for it"
        raise FetchError("DownloadServerIsUnreachable", what) from error
    except LocalEntryNotFoundError as error:
        raise FetchError("DownloadServerIsUnreachable", f"{name}: the server does not answer") from error
    except FileMetadataError as error:
        what = f"{name}: what answers does not speak as Hugging Face does: {error}"
        raise FetchError("DownloadServerErrored", what) from error
    except (httpx2.ConnectError, httpx2.TimeoutException, httpx2.ProxyError) as error:
        what = f"{name}: the server does not answer: {error or type(error).__name__}"
        raise FetchError("DownloadServerIsUnreachable", what) from error
    except httpx2.HTTPError as error:
        what = f"{name} broke off: {error or type(error).__name__}"
        raise FetchError("DownloadInterrupted", what) from error
    except EntryNotFoundError as error:
        raise FetchError("HuggingFaceModelDoesNotExist", f"{name} does not exist") from error
    except OSError as error:
        # That a file has another size than was said; `telling_of_disk` has told of what has a number.
        raise FetchError("DownloadInterrupted", f"{name}: {_first_line(error)}") from error
    except RuntimeError as error:
        # Of hf_xet, where it was asked for.
        raise FetchError("DownloadInterrupted", f"{name}: {_first_line(error)}") from error
    except ValueError as error:
        raise FetchError("HuggingFaceModelDoesNotExist", f"{name}: {_first_line(error)}") from error


def _of_answer(name: str, error: HfHubHTTPError) -> FetchError:
    status = error.response.status_code
    said = error.response.headers.get("x-error-message", "")
    what = f"{name}: {said or 'the server answers'} ({status})"
    asked_s = retry_after_s(error.response.headers.get("retry-after"), SystemClock().wall())
    if isinstance(error, GatedRepoError):
        return FetchError("HuggingFacePermissions", what)
    if isinstance(error, RepositoryNotFoundError):
        # That is what a private one is said to be as well.
        return FetchError("HuggingFaceModelDoesNotExist", f"{name}: no such repository, or it is private ({status})")
    if isinstance(error, RevisionNotFoundError):
        return FetchError("HuggingFaceModelDoesNotExist", f"{name}: no such revision ({status})")
    if isinstance(error, EntryNotFoundError) or status in (404, 410):
        return FetchError("HuggingFaceModelDoesNotExist", f"{name}: no such file ({status})")
    if status in (401, 403):
        return FetchError("HuggingFacePermissions", what)
    if status in _PASSING:
        return FetchError("DownloadServerRejectedRequest", what, course=Course.RETRIES, asked_s=asked_s)
    kind = "DownloadServerErrored" if status >= 500 else "DownloadServerRejectedRequest"
    return FetchError(kind, what, asked_s=asked_s)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
