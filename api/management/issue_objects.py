"""Issues as Paddler 4.1 writes them: an object with the kind as its one key."""

from __future__ import annotations

from typing import TypedDict

from paddler.issues import Issue


class ModelIssue(TypedDict):
    """`error` is ours: what is wrong, in words."""

    model_path: str
    error: str


class SlotIssue(TypedDict):
    error: str
    slot_index: int


class ModelPath(TypedDict):
    model_path: str


class TemplateIssue(TypedDict):
    error: str
    model_path: ModelPath
    template_content: str


class LockIssue(TypedDict):
    """`error` is ours."""

    lock_path: str
    model_path: ModelPath
    error: str


class AgentIssue(TypedDict, total=False):
    """Exactly one of them."""

    CacheCannotAcquireLock: ModelIssue
    CacheDirectoryIsNotWritable: ModelIssue
    CacheStorageIsFull: ModelIssue
    ChatTemplateDoesNotCompile: TemplateIssue
    DownloadInterrupted: ModelIssue
    DownloadServerDeniedAccess: ModelIssue
    DownloadServerErrored: ModelIssue
    DownloadServerIsUnreachable: ModelIssue
    DownloadServerRejectedRequest: ModelIssue
    DownloadUrlIsMalformed: ModelIssue
    HuggingFaceCannotAcquireLock: LockIssue
    HuggingFaceModelDoesNotExist: ModelIssue
    HuggingFacePermissions: ModelIssue
    ModelCacheIsCorrupted: ModelIssue
    ModelCannotBeLoaded: ModelIssue
    ModelDoesNotExistAtUrl: ModelIssue
    ModelFileDoesNotExist: ModelIssue
    MultimodalProjectionCannotBeLoaded: ModelIssue
    SlotCannotStart: SlotIssue
    UnableToFindChatTemplate: ModelIssue


def issue_object(issue: Issue) -> AgentIssue:
    """Its kind with what Paddler 4.1 says of that, and `error` in any case. Clients know Paddler 4.1's kinds alone, and
    one of them refuses the whole list for another: what is ours has the one that keeps the words."""
    path: ModelPath = {"model_path": issue.model_path}
    match issue.kind:
        case "ChatTemplateDoesNotCompile":
            template = issue.template_content
            return {issue.kind: {"error": issue.detail, "model_path": path, "template_content": template}}
        case "HuggingFaceCannotAcquireLock":
            return {issue.kind: {"lock_path": issue.lock_path, "model_path": path, "error": issue.detail}}
        case kind if kind not in AgentIssue.__annotations__ or kind == "SlotCannotStart":
            return {"SlotCannotStart": {"error": issue.detail, "slot_index": 0}}
        case kind:
            model: ModelIssue = {"model_path": issue.model_path, "error": issue.detail}
            return {kind: model}  # pyright: ignore[reportReturnType]  # of the keys with this value
