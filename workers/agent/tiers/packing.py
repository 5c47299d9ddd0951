"""The envelope of a block outside its agent: whole, of this fleet, under this name, or refused.

    header (84 bytes, plain)   what it is
    payload                    the state, compressed where that pays (`squeezing.py`), encrypted
    tag (16 bytes)             of AES-256-GCM over header, name and payload

One key does three things: who has it not can neither read a state nor make one that is taken for ours, and what has
changed on its way does not open. The nonce is random, so one key is good for 2**32 blocks (NIST SP 800-38D, 8.3). The
name under which a block is kept is authenticated with it: under another one it does not open.
"""

from __future__ import annotations

import os
import struct
from enum import StrEnum

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from workers.agent.saved_states import BLOCK, State
from workers.agent.tiers.names import NAME_SIZE
from workers.agent.tiers.squeezing import Codec, Unsqueezable, squeeze, unsqueeze
from workers.agent.tokens import TokenArray

FORMAT = 1
"""Of the envelope; another one is not read."""
MAX_STATE = 1 << 30
"""Bytes of a block's state; one of a model of 405 billion parameters is 135 MB."""
PIECE = 1 << 20
"""Bytes encrypted in one call, which holds the GIL: a whole block of a large model would hold up a step for longer than
a switch of threads takes anyway (5 ms)."""

_MAGIC = b"PDKV"
_HEADER = struct.Struct("<4sBBBxIIQQ16s16s8s12s")
HEADER_SIZE = _HEADER.size
TAG_SIZE = 16


class Fault(StrEnum):
    CUT_OFF = "cut off"
    CORRUPT = "corrupt or forged"
    FOREIGN = "of another key or place"
    OTHER_FORMAT = "of another format"


class BadBlock(Exception):
    """What was read is not the block it should be; its tokens are computed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"the block is {fault}")
        self.fault = fault


class Header(Struct, frozen=True):
    """`above` is the name of the block that this one follows, `own` the chained name of its tokens, which for a tail is
    not the name it is kept under. `token_us`: what computing a token took where this was written, in microseconds;
    `num_state` bytes of state in `num_payload` of payload."""

    codec: int
    is_tail: bool
    num_tokens: int
    token_us: int
    num_state: int
    num_payload: int
    above: bytes
    own: bytes
    key_id: bytes
    nonce: bytes

    @property
    def num_bytes(self) -> int:
        """Of the whole packed block."""
        return HEADER_SIZE + self.num_payload + TAG_SIZE

    @property
    def prefill_s(self) -> float:
        """What this block saves when it is used, at least a microsecond a token."""
        return self.num_tokens * max(self.token_us, 1) / 1e6


class Unpacked(Struct, frozen=True):
    header: Header
    state: State


def read_header(packed: bytes | memoryview) -> Header:
    """Of the beginning of a packed block; nothing of it is proven before it is unpacked. Raises `BadBlock`."""
    if len(packed) < HEADER_SIZE:
        raise BadBlock(Fault.CUT_OFF)
    magic, version, codec, is_tail, *rest = _HEADER.unpack_from(packed)
    if magic != _MAGIC:
        raise BadBlock(Fault.FOREIGN)
    if version != FORMAT:
        raise BadBlock(Fault.OTHER_FORMAT)
    header = Header(codec, bool(is_tail), *rest)
    if not (is_tail <= 1 and 0 < header.num_tokens <= BLOCK and header.num_state <= MAX_STATE):
        raise BadBlock(Fault.CORRUPT)
    return header


class Packer:
    """With one key, made of `secret`: the content of the operator's key file, else the fleet's secret. Any thread."""

    def __init__(self, secret: bytes) -> None:
        both = HKDF(SHA256(), 40, salt=None, info=b"paddler saved states 1").derive(secret)
        self._key, self.key_id = both[:32], both[32:]

    def pack(self, name: bytes, state: State, *, above: bytes, own: bytes, num_tokens: int, token_us: int = 0) -> bytes:
        """For keeping under `name`; a tail's is not its `own`. Raises `ValueError` for more than `MAX_STATE` bytes."""
        if state.nbytes > MAX_STATE:
            raise ValueError(f"a state of {state.nbytes} bytes is too large: at most {MAX_STATE}")
        codec, payload = squeeze(state)
        nonce = os.urandom(12)
        sizes = min(token_us, 0xFFFFFFFF), state.nbytes, len(payload)
        header = _HEADER.pack(_MAGIC, FORMAT, codec, name != own, num_tokens, *sizes, above, own, self.key_id, nonce)
        cipher = Cipher(algorithms.AES(self._key), modes.GCM(nonce)).encryptor()
        cipher.authenticate_additional_data(header + name)
        sealed = [cipher.update(payload[at : at + PIECE]) for at in range(0, len(payload), PIECE)]
        return b"".join([header, *sealed, cipher.finalize(), cipher.tag])

    def unpack(self, name: bytes, packed: bytes) -> Unpacked:
        """What was kept under `name`. Raises `BadBlock`, and then nothing of it is used."""
        view = memoryview(packed)
        header = read_header(view[:HEADER_SIZE])
        if header.key_id != self.key_id or (not header.is_tail and header.own != name):
            raise BadBlock(Fault.FOREIGN)
        if len(view) < header.num_bytes:
            raise BadBlock(Fault.CUT_OFF)
        if len(view) > header.num_bytes:
            raise BadBlock(Fault.CORRUPT)
        payload = np.empty(header.num_payload, np.uint8)
        out = payload.data
        cipher = Cipher(algorithms.AES(self._key), modes.GCM(header.nonce, bytes(view[-TAG_SIZE:]))).decryptor()
        cipher.authenticate_additional_data(bytes(view[:HEADER_SIZE]) + name)
        sealed = view[HEADER_SIZE:-TAG_SIZE]
        for at in range(0, len(sealed), PIECE):
            cipher.update_into(sealed[at : at + PIECE], out[at : at + PIECE])
        try:
            cipher.finalize()
            state = unsqueeze(Codec(header.codec), payload, header.num_state)
        except (InvalidTag, ValueError, Unsqueezable):
            raise BadBlock(Fault.CORRUPT) from None
        return Unpacked(header, state)


def with_tokens(tokens: TokenArray, state: State) -> State:
    """What of a tail is packed: its tokens, too, so that one that begins like it may have as much of it."""
    return np.concatenate([tokens.astype("<i4", copy=False).view(np.uint8), state])


def parted(tail: Unpacked) -> tuple[TokenArray, Unpacked]:
    """The tokens of a tail, and it with its state alone. Raises `BadBlock`."""
    size = 4 * tail.header.num_tokens
    if len(tail.state) <= size:
        raise BadBlock(Fault.CORRUPT)
    tokens = tail.state[:size].view("<i4").astype(np.int32, copy=False)
    return tokens, Unpacked(tail.header, tail.state[size:])


assert NAME_SIZE == 16, "the header has room for names of this size"
