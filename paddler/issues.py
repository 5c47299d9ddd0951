"""What keeps an agent from serving, as its operator sees it: in the agent's log, its hash in Redis and `paddler queue`.

Kinds are those of Paddler 4.1 where it has one: `ModelFileDoesNotExist`, `ModelCannotBeLoaded`, `SlotCannotStart` (the
model is there, but its context cannot be made). `LoraAdapterCannotBeLoaded` and `SettingsInvalid` are ours, and those
of an agent that fronts another server: `UpstreamUnreachable`, `UpstreamKeyRefused`, `UpstreamEndpointOff`.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec
from msgspec import Struct

IssueKind = Literal[
    "ModelFileDoesNotExist",
    "ModelCannotBeLoaded",
    "SlotCannotStart",
    "LoraAdapterCannotBeLoaded",
    "SettingsInvalid",
    "UpstreamUnreachable",
    "UpstreamKeyRefused",
    "UpstreamEndpointOff",
]

WAITS_FOR_FILE = "The agent stays in its pool without slots and tries again as soon as the file changes."
WAITS_FOR_MEMORY = f"{WAITS_FOR_FILE} It also tries once a minute, as memory may become free."
ENDS = "The agent ends with exit code 78; starting it again with the same settings changes nothing."
STOPS = "`paddler up` tries once more and then stops everything."

_REMEDIES: dict[IssueKind, str] = {
    "ModelFileDoesNotExist": "Put the file there, or start the agent with the path of a GGUF file that it can read.",
    "ModelCannotBeLoaded": "Download the file again and compare its size and checksum, or choose a GGUF that this "
    "llama.cpp knows; a newer Paddler may know it.",
    "SlotCannotStart": "Give the agent less to hold: a smaller --context-size, fewer --slots, --cache-type-k q8_0 and "
    "--cache-type-v q8_0, or a smaller model.",
    "LoraAdapterCannotBeLoaded": "Give an adapter in GGUF form that was trained on this very base model, or leave "
    "--lora-adapters out.",
    "SettingsInvalid": "Correct the setting that is named.",
    "UpstreamUnreachable": "Start the server, or start the agent with the --upstream at which it listens; from the "
    "agent's host `curl` must get an answer of its /health.",
    "UpstreamKeyRefused": "Put the key that the server wants into the file of --upstream-api-key-file; the agent reads "
    "it again by itself. A key given with --local-llamacpp-api-key is changed by starting the agent anew.",
    "UpstreamEndpointOff": "Let the server offer the route that is named, or start the agent with the right --upstream "
    "(its root, without /v1) and --upstream-model.",
}

UPSTREAM_KINDS: frozenset[IssueKind] = frozenset({"UpstreamUnreachable", "UpstreamKeyRefused", "UpstreamEndpointOff"})
WAITS_FOR_UPSTREAM = "The agent takes no requests, asks the server again every second and goes on when it can serve."


class Issue(Struct, frozen=True, kw_only=True):
    """`detail` says what is wrong, `action` what Paddler does about it, `remedy` what its operator can do."""

    kind: IssueKind
    detail: str
    model_path: str
    action: str
    remedy: str


def issue_of(kind: IssueKind, detail: str, model_path: str, *, waits: bool) -> Issue:
    """`waits`: the agent stays up; else it ends."""
    if kind == "SettingsInvalid" or not waits:
        action = ENDS if kind == "SettingsInvalid" else f"{ENDS} {STOPS}"
    elif kind in UPSTREAM_KINDS:
        action = WAITS_FOR_UPSTREAM
    else:
        action = WAITS_FOR_MEMORY if kind == "SlotCannotStart" else WAITS_FOR_FILE
    return Issue(kind=kind, detail=detail, model_path=model_path, action=action, remedy=_REMEDIES[kind])


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
