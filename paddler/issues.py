"""What keeps an agent from serving, as its operator sees it: in the agent's log, its hash in Redis and `paddler queue`.

Kinds are those of Paddler 4.1 where it has one: `ModelFileDoesNotExist`, `ModelCannotBeLoaded`, `SlotCannotStart` (the
model is there, but its context cannot be made). `LoraAdapterCannotBeLoaded` and `SettingsInvalid` are ours.
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
}


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
