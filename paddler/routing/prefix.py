"""The prefix chain of a request: equal beginnings of conversations, equal hashes (life of a request, step 1).

The balancer has no model, so the chain is made of bytes, not of tokens. Three properties carry everything else:

- *Unambiguous*: different conversations never serialise equally. Fields are UTF-8 and end at bytes that UTF-8
  never contains, not behind lengths: a length in front would give two messages that begin alike no common prefix.
- *Decided by the past*: whether and where an entry ends depends on nothing behind it. Hence the chain of a
  conversation is the beginning of the chain of each of its continuations, whatever their length.
- *Bounded*: at most `MAX_ENTRIES`. The n-th entry reaches at most `_reach(n)` bytes further than the one before, and
  that width grows by steps, so 64 entries cover up to 769 KiB and locate a match to within 1/6 of its length.
  A grid of absolute positions would need a second budget for the ends of messages, and so half the resolution.

Each hash is xxh3_64 over everything up to the entry's end. It is no cryptographic hash: a collision sends a request
to an agent that holds less than expected, never changes what is generated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Self

from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_64, xxh3_128

from paddler.wire.agent import Generate, ImagePart, Message

MAX_ENTRIES = 64
BLOCK_BYTES = 256

_ENTRY = struct.Struct(">8sI")
_FIRST_CLASS = 16  # entries of one block each, ended by every message
_PER_CLASS = 6  # entries of each doubled width after that

IMAGE_BYTES = 1024
"""What an image counts for in a chain: its digest again and again, because to a model it is some hundreds of tokens,
whatever the size of its file."""
DIGEST_BYTES = 16

_IMAGE = b"\xf7"
_ROLE, _NAME, _CONTENT, _PROMPT, _END = b"\xf8", b"\xf9", b"\xfa", b"\xfb", b"\xff"
_TOOL, _CALL, _BEFORE = b"\xfc", b"\xfd", b"\xfe"
_IDS, _GAP = b"\xf5", b"\xf6"


class PrefixChain(Struct, frozen=True):
    """Entry `i` says that the first `ends[i]` bytes of the serialised conversation hash to `hashes[i]` (8 bytes).

    `ends` rises strictly. `num_bytes` is the length of the whole serialisation, entries or not."""

    hashes: tuple[bytes, ...]
    ends: tuple[int, ...]
    num_bytes: int

    def pack(self) -> bytes:
        """12 bytes an entry: the hash, then its end as a big-endian uint32 (`struct.unpack('>c8I4')` in Lua)."""
        return b"".join(_ENTRY.pack(digest, end) for digest, end in zip(self.hashes, self.ends, strict=True))

    @classmethod
    def unpack(cls, packed: bytes, num_bytes: int) -> Self:
        """The inverse of `pack`. Raises `struct.error` for bytes that are no whole number of entries."""
        entries = list(_ENTRY.iter_unpack(packed))
        return cls(tuple(digest for digest, _ in entries), tuple(end for _, end in entries), num_bytes)

    def in_tokens(self, bytes_per_token: float) -> tuple[tuple[bytes, int], ...]:
        """The entries with their ends in tokens, rounded down: what the policy compares."""
        return tuple(
            (digest, math.floor(end / bytes_per_token)) for digest, end in zip(self.hashes, self.ends, strict=True)
        )


def prefix_chain(payload: Generate, *, pool: str, tenant: str | None) -> PrefixChain:
    """The chain of a request. `tenant` None means that the operator lets tenants share caches.

    Two chains of one pool and tenant agree in every entry that ends within the common beginning of their
    conversations; chains of different pools or tenants agree in none."""
    parts: list[bytes] = []
    message_ends: list[int] = []
    num_bytes = 0
    for part, ends_message in _serialise(payload):
        parts.append(part)
        num_bytes += len(part)
        if ends_message:
            message_ends.append(num_bytes)
    data = memoryview(b"".join(parts))
    hasher = xxh3_64(_salt(pool, tenant))
    hashes: list[bytes] = []
    ends: list[int] = []
    last = 0
    for end in _cuts(message_ends, num_bytes):
        hasher.update(data[last:end])
        hashes.append(hasher.digest())
        ends.append(end)
        last = end
    return PrefixChain(tuple(hashes), tuple(ends), num_bytes)


def _serialise(payload: Generate) -> Iterator[tuple[bytes, bool]]:
    """Parts of the canonical serialisation, and whether a message ends behind each.

    A name stands before the content, as chat templates render it: behind it, a chain would promise a cached
    content to another name. So do tools and the template's variables before all messages. A raw prompt has no end, nor
    has an answer that has begun: their continuation begins with them."""
    if payload.prompt_ids is not None:
        yield _IDS + b"".join(one.to_bytes(4, "big") for one in payload.prompt_ids), False
    elif payload.prompt is not None and payload.suffix is not None:
        # A prompt with a gap begins with a token of its own.
        yield _GAP + _encode(payload.prompt) + _GAP + _encode(payload.suffix), False
    elif payload.prompt is not None:
        yield _PROMPT + _encode(payload.prompt), False
    for tool in payload.callable_tools:
        yield (
            _TOOL + _encode(tool.name) + _NAME + _encode(tool.description or "") + _NAME + _encode(tool.parameters),
            True,
        )
    if payload.template_kwargs:
        yield _BEFORE + _encode(payload.template_kwargs), True
    for message in payload.messages or ():
        yield _ROLE + _encode(message.role) + _around(message) + _CONTENT + _content(message), False
        for call in message.tool_calls:
            yield _CALL + _encode(call.name) + _NAME + _encode(call.arguments), False
        yield _END, True
    if payload.beginning:
        yield _ROLE + b"assistant" + _CONTENT + _encode(payload.beginning), False


def _around(message: Message) -> bytes:
    """What a message has before its content. Ids of calls are in no prompt, or make no difference to it."""
    name = b"" if message.name is None else _NAME + _encode(message.name)
    return name if message.reasoning_content is None else name + _BEFORE + _encode(message.reasoning_content)


def _content(message: Message) -> bytes:
    """Where there are images, a text ends where one begins; texts that follow each other are on lines of their own."""
    if not message.parts:
        return _encode(message.content)
    parts: list[bytes] = []
    for part in message.parts:
        if isinstance(part, ImagePart):
            digest = _digest(part).hex().encode()
            parts.append(_IMAGE + digest * (IMAGE_BYTES // len(digest)))
        else:
            parts.append((b"\n" if parts and not parts[-1].startswith(_IMAGE) else b"") + _encode(part.text))
    return b"".join(parts)


def without_images(payload: Generate) -> Generate:
    """The same conversation with digests for images: its chain is the same, and it takes no room."""
    if not any(message.parts for message in payload.messages or ()):
        return payload
    messages = [
        replace(
            message,
            parts=tuple(ImagePart(_digest(part)) if isinstance(part, ImagePart) else part for part in message.parts),
        )
        for message in payload.messages or ()
    ]
    return replace(payload, messages=tuple(messages))


def _digest(part: ImagePart) -> bytes:
    """What is as short as a digest is one: no image is."""
    return part.data if len(part.data) == DIGEST_BYTES else xxh3_128(part.data).digest()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _salt(pool: str, tenant: str | None) -> bytes:
    return _encode(pool) + (_END if tenant is None else _NAME + _encode(tenant) + _END)


def _reach(index: int) -> int:
    """How many bytes the entry of this index may cover at most."""
    if index < _FIRST_CLASS:
        return BLOCK_BYTES
    return BLOCK_BYTES << ((index - _FIRST_CLASS) // _PER_CLASS + 1)


def _cuts(message_ends: list[int], num_bytes: int) -> Iterator[int]:
    """Where entries end: at the first end of a message that lies far enough behind the last cut, else at full reach.

    "Far enough" is half the reach, so that short messages cannot use up the entries of a long conversation; in the
    first class it is nothing, so that short conversations have entries at all."""
    last = 0
    upcoming = iter(message_ends)
    message_end = next(upcoming, None)
    for index in range(MAX_ENTRIES):
        reach = _reach(index)
        least = 1 if index < _FIRST_CLASS else reach // 2
        while message_end is not None and message_end < last + least:
            message_end = next(upcoming, None)
        cut = last + reach
        if message_end is not None and message_end < cut:
            cut = message_end
        if cut > num_bytes:
            return
        yield cut
        last = cut
