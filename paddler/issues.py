"""What keeps an agent from serving, as its operator sees it: in the agent's log, its hash in Redis and `paddler queue`.

Kinds are those of Paddler 4.1, with `LoraAdapterCannotBeLoaded`, `SettingsInvalid` and those of an agent that fronts
another server beside them. What Paddler does about each and what an operator can do is in `paddler/remedies.py`.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec
from msgspec import Struct

from paddler import remedies
from paddler.remedies import Course

IssueKind = Literal[
    "ModelFileDoesNotExist",
    "ModelCannotBeLoaded",
    "SlotCannotStart",
    "LoraAdapterCannotBeLoaded",
    "SettingsInvalid",
    "MultimodalProjectionCannotBeLoaded",
    "ChatTemplateDoesNotCompile",
    "UnableToFindChatTemplate",
    "CacheCannotAcquireLock",
    "CacheDirectoryIsNotWritable",
    "CacheStorageIsFull",
    "DownloadInterrupted",
    "DownloadServerDeniedAccess",
    "DownloadServerErrored",
    "DownloadServerIsUnreachable",
    "DownloadServerRejectedRequest",
    "DownloadUrlIsMalformed",
    "HuggingFaceCannotAcquireLock",
    "HuggingFaceModelDoesNotExist",
    "HuggingFacePermissions",
    "ModelCacheIsCorrupted",
    "ModelDoesNotExistAtUrl",
    "UpstreamUnreachable",
    "UpstreamKeyRefused",
    "UpstreamEndpointOff",
    "VersionIncompatible",
]

UPSTREAM_KINDS: frozenset[IssueKind] = frozenset({"UpstreamUnreachable", "UpstreamKeyRefused", "UpstreamEndpointOff"})


class Issue(Struct, frozen=True, kw_only=True):
    """`detail` says what is wrong, `action` what Paddler does about it, `remedy` what its operator can do. `model_path`
    is the file, or how the desired state names it. `lock_path` is the lock that another process holds,
    `template_content` the template that is no good; both empty with other kinds."""

    kind: IssueKind
    detail: str
    model_path: str
    action: str
    remedy: str
    lock_path: str = ""
    template_content: str = ""


def issue_of(
    kind: IssueKind,
    detail: str,
    model_path: str,
    *,
    waits: bool,
    course: Course | None = None,
    lock_path: str = "",
    template_content: str = "",
) -> Issue:
    """`waits`: the agent stays up; else it ends, as one does in any case whose own flags are wrong. `course` is what it
    does while it stays, if not what is usual for this kind: given by one that follows a desired state, which stays."""
    if (kind == "SettingsInvalid" and course is None) or not waits:
        action = remedies.ENDS if kind == "SettingsInvalid" else f"{remedies.ENDS} {remedies.STOPS}"
    else:
        action = remedies.ACTIONS[course or course_of(kind)]
    extra = {"lock_path": lock_path, "template_content": template_content}
    return Issue(
        kind=kind, detail=detail, model_path=model_path, action=action, remedy=remedies.REMEDIES[kind], **extra
    )


def course_of(kind: IssueKind) -> Course:
    """What an agent does about it as long as it stays up."""
    return remedies.COURSES[kind]


def encode_issues(issues: tuple[Issue, ...]) -> bytes:
    """JSON for the field `issues` of an agent's hash."""
    return msgspec.json.encode(issues)


def decode_issues(data: bytes | None) -> tuple[Issue, ...]:
    """What this version can read of it: nothing of a newer one's kinds."""
    try:
        return _decoder.decode(data) if data else ()
    except msgspec.MsgspecError:
        return ()


def all_kinds() -> tuple[IssueKind, ...]:
    return get_args(IssueKind)


_decoder = msgspec.json.Decoder(tuple[Issue, ...])
