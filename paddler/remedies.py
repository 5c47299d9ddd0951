"""What Paddler does about each kind of issue, and what its operator can do: the words beside `paddler/issues.py`."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Course(StrEnum):
    """What an agent that stays up does about an issue."""

    WATCHES_FILE = "watches the file"
    WATCHES_FILE_AND_MEMORY = "watches the file and tries once a minute"
    WAITS_FOR_OTHER = "waits for another process"
    RETRIES = "tries again, less and less often"
    RETRIES_SELDOM = "tries again once in some minutes"
    RETRIES_LITTLE = "tries again twice"
    GIVES_UP = "tries no more"
    SERVES_PROMPTS = "serves prompts, no chats"
    ASKS_SERVER = "asks the server again"
    STANDS_ASIDE = "stands aside"


_WATCHES = "The agent stays in its pool without slots and tries again as soon as the file changes."

ACTIONS: Final = {
    Course.WATCHES_FILE: _WATCHES,
    Course.WATCHES_FILE_AND_MEMORY: f"{_WATCHES} It also tries once a minute, as memory may become free.",
    Course.WAITS_FOR_OTHER: "The agent looks every second or two, and uses the file of the other one when that is "
    "done.",
    Course.RETRIES: "The agent tries again after a second, then less and less often, at least every five minutes. "
    "What it has of the file it keeps and goes on from.",
    Course.RETRIES_SELDOM: "The agent tries again after a minute, then less and less often, at least every "
    "quarter of an hour.",
    Course.RETRIES_LITTLE: "The agent discards the file and downloads it again, twice at most; then it waits for "
    "another desired state.",
    Course.ASKS_SERVER: "The agent takes no requests, asks the server every second and goes on when it can serve.",
    Course.STANDS_ASIDE: "The agent takes no requests, looks again four times in a lease and goes on when it may.",
    Course.SERVES_PROMPTS: "The agent serves prompts and embeddings, and refuses conversations (400).",
    Course.GIVES_UP: "The agent does not try again until the desired state changes or it is started anew.",
}

ENDS = "The agent ends with exit code 78; starting it again with the same settings changes nothing."
STOPS = "`paddler up` tries once more and then stops everything."

COURSES: Final = {
    "UpstreamUnreachable": Course.ASKS_SERVER,
    "UpstreamKeyRefused": Course.ASKS_SERVER,
    "UpstreamEndpointOff": Course.ASKS_SERVER,
    "VersionIncompatible": Course.STANDS_ASIDE,
    "ModelFileDoesNotExist": Course.WATCHES_FILE,
    "ModelCannotBeLoaded": Course.WATCHES_FILE,
    "SlotCannotStart": Course.WATCHES_FILE_AND_MEMORY,
    "LoraAdapterCannotBeLoaded": Course.WATCHES_FILE,
    "SettingsInvalid": Course.GIVES_UP,
    "MultimodalProjectionCannotBeLoaded": Course.WATCHES_FILE,
    "ChatTemplateDoesNotCompile": Course.GIVES_UP,
    "UnableToFindChatTemplate": Course.SERVES_PROMPTS,
    "CacheCannotAcquireLock": Course.WAITS_FOR_OTHER,
    "CacheDirectoryIsNotWritable": Course.RETRIES,
    "CacheStorageIsFull": Course.RETRIES,
    "DownloadInterrupted": Course.RETRIES,
    "DownloadServerDeniedAccess": Course.RETRIES_SELDOM,
    "DownloadServerErrored": Course.RETRIES,
    "DownloadServerIsUnreachable": Course.RETRIES,
    "DownloadServerRejectedRequest": Course.GIVES_UP,
    "DownloadUrlIsMalformed": Course.GIVES_UP,
    "HuggingFaceCannotAcquireLock": Course.WAITS_FOR_OTHER,
    "HuggingFaceModelDoesNotExist": Course.GIVES_UP,
    "HuggingFacePermissions": Course.RETRIES_SELDOM,
    "ModelCacheIsCorrupted": Course.RETRIES_LITTLE,
    "ModelDoesNotExistAtUrl": Course.GIVES_UP,
}

REMEDIES: Final = {
    "UpstreamUnreachable": "Start the server, or start the agent with the --upstream at which it listens; from the "
    "agent's host `curl` must get an answer of its /health.",
    "UpstreamKeyRefused": "Put the key that the server wants into the file of --upstream-api-key-file; the agent reads "
    "it again by itself. A key given with --local-llamacpp-api-key is changed by starting the agent anew.",
    "UpstreamEndpointOff": "Let the server offer the route that is named, or start the agent with the right --upstream "
    "(its root, without /v1) and --upstream-model.",
    "VersionIncompatible": "Bring agents, balancers and workers to versions that work beside each other, balancers and "
    "workers first.",
    "ModelFileDoesNotExist": "Put the file there, or name the path of a GGUF file that this agent can read, by "
    "--model or in the desired state.",
    "ModelCannotBeLoaded": "Download the file again and compare its size and checksum, or choose a GGUF that this "
    "llama.cpp knows; a newer Paddler may know it.",
    "SlotCannotStart": "Give the agent less to hold: a smaller --context-size, fewer --slots, --cache-type-k q8_0 "
    "and --cache-type-v q8_0, or a smaller model.",
    "LoraAdapterCannotBeLoaded": "Give an adapter in GGUF form that was trained on this very base model, or leave "
    "--lora-adapters out.",
    "SettingsInvalid": "Correct the setting that is named.",
    "MultimodalProjectionCannotBeLoaded": "Give the projection that belongs to this very model, in GGUF form "
    "(usually named mmproj-*.gguf, beside the model), or none.",
    "ChatTemplateDoesNotCompile": "Correct the template where the error says, or switch the override off to use "
    "the model's own.",
    "UnableToFindChatTemplate": "Give the desired state a chat template, or choose a model that was tuned for chats.",
    "CacheCannotAcquireLock": "Nothing, as long as another agent of this host downloads the same model. If none "
    "does, see which process has the lock file open (lsof, fuser).",
    "CacheDirectoryIsNotWritable": "Let the agent's user write to the directory that is named, or name another "
    "one by --cache-dir.",
    "CacheStorageIsFull": "Make room on the disk of the cache, delete models that are no longer used, or name a "
    "directory on another disk by --cache-dir.",
    "DownloadInterrupted": "Nothing, if it gets further with each try; else look at the network between agent and "
    "server.",
    "DownloadServerDeniedAccess": "Give the agent a token that may read the file, by --download-token-file, and "
    "see that it has not expired; the agent reads it anew at each try.",
    "DownloadServerErrored": "Nothing, if the server recovers; else ask whoever runs it, or name the model at "
    "another URL.",
    "DownloadServerIsUnreachable": "See that the agent's host can resolve the name and connect to it, past "
    "firewalls and by the right proxy (HTTPS_PROXY).",
    "DownloadServerRejectedRequest": "Nothing, if it says 429: the server wants to be asked less often. Else open "
    "the URL with another client, such as curl, and correct it in the desired state.",
    "DownloadUrlIsMalformed": "Write the URL out: http:// or https://, host and path.",
    "HuggingFaceCannotAcquireLock": "Nothing, as long as another process of this host downloads the same file. If "
    "none does, see which one has the lock file open (lsof, fuser).",
    "HuggingFaceModelDoesNotExist": "Compare repo_id, filename and revision with the repository's page. If it is "
    "private, give the agent a token that may read it, by --hf-token-file or HF_TOKEN.",
    "HuggingFacePermissions": "Accept the model's terms on its page, and give the agent a token of that account, "
    "by --hf-token-file or HF_TOKEN; a token file is read anew at each try.",
    "ModelCacheIsCorrupted": "Compare the checksum in the desired state with the one that the model's publisher names.",
    "ModelDoesNotExistAtUrl": "Correct the URL in the desired state; at huggingface.co it has /resolve/ where the "
    "page has /blob/.",
}
