"""The envelope: what comes out is what went in, or nothing."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tier_calls import PACKER, SECRET, Made, chain, state_of, tokens_of

from workers.agent.saved_states import BLOCK, State
from workers.agent.tiers import packing
from workers.agent.tiers.packing import HEADER_SIZE, TAG_SIZE, BadBlock, Fault, Packer, read_header
from workers.agent.tiers.squeezing import Codec

FULL, TAIL = chain(tokens_of(1, BLOCK + 30))
FIELDS = {"magic": 0, "version": 4, "num_tokens": 8, "num_state": 16, "num_payload": 24}
FIELDS.update(own=48, key_id=64, nonce=72)


def fault_of(name: bytes, packed: bytes, packer: Packer = PACKER) -> Fault:
    with pytest.raises(BadBlock) as caught:
        packer.unpack(name, packed)
    return caught.value.fault


def flipped(packed: bytes, at: int, mask: int = 1) -> bytes:
    changed = bytearray(packed)
    changed[at] ^= mask
    return bytes(changed)


@pytest.mark.parametrize("block", [FULL, TAIL], ids=["block", "tail"])
def test_what_was_packed_comes_out(block: Made) -> None:
    packed = block.packed(token_us=250)
    opened = PACKER.unpack(block.name, packed)
    assert (opened.state == block.state).all()
    assert opened.header == read_header(packed)
    assert opened.header.num_bytes == len(packed)
    assert opened.header.is_tail == (block is TAIL)
    assert (opened.header.own, opened.header.above) == (block.own, block.above)
    assert opened.header.num_tokens == len(block.tokens)
    assert opened.header.prefill_s == pytest.approx(len(block.tokens) * 250e-6)


@given(st.binary(max_size=3 * packing.PIECE // 1000), st.integers(1, BLOCK - 1))
def test_any_bytes_come_out(data: bytes, num_tokens: int) -> None:
    state = np.frombuffer(data, np.uint8)
    packed = PACKER.pack(TAIL.name, state, above=TAIL.above, own=TAIL.own, num_tokens=num_tokens)
    assert bytes(PACKER.unpack(TAIL.name, packed).state) == data


@pytest.mark.parametrize("size", [packing.PIECE - 1, packing.PIECE, 2 * packing.PIECE + 1])
@pytest.mark.parametrize("is_even", [True, False])
def test_states_of_several_pieces_come_out(size: int, is_even: bool) -> None:
    state = np.zeros(size, np.uint8) if is_even else state_of(1, size)
    packed = PACKER.pack(FULL.name, state, above=FULL.above, own=FULL.own, num_tokens=BLOCK)
    opened = PACKER.unpack(FULL.name, packed)
    assert (opened.state == state).all()
    assert (opened.header.codec == Codec.NONE) != is_even, "what does not become smaller is kept as it is"
    assert len(packed) <= size + HEADER_SIZE + TAG_SIZE


def test_nothing_is_readable_and_nothing_is_said_twice() -> None:
    state = np.frombuffer(b"what a tenant said" * 40, np.uint8)
    one, other = (PACKER.pack(FULL.name, state, above=FULL.above, own=FULL.own, num_tokens=BLOCK) for _ in range(2))
    assert b"tenant" not in one
    assert SECRET not in one
    assert one[FIELDS["nonce"] : HEADER_SIZE] != other[FIELDS["nonce"] : HEADER_SIZE]
    assert one[HEADER_SIZE:] != other[HEADER_SIZE:]


@pytest.mark.parametrize("block", [FULL, TAIL], ids=["block", "tail"])
def test_no_flipped_bit_opens(block: Made) -> None:
    """One bit of every byte of the header, of the tag, and of bytes all over the payload."""
    packed = block.packed()
    places = [*range(HEADER_SIZE), *range(HEADER_SIZE, len(packed), 37), *range(len(packed) - TAG_SIZE, len(packed))]
    for at in places:
        for bit in range(8) if at < HEADER_SIZE else [at % 8]:
            with pytest.raises(BadBlock):
                PACKER.unpack(block.name, flipped(packed, at, 1 << bit))


def test_what_is_wrong_is_told() -> None:
    packed = FULL.packed()
    assert fault_of(FULL.name, flipped(packed, FIELDS["magic"])) is Fault.FOREIGN
    assert fault_of(FULL.name, flipped(packed, FIELDS["version"])) is Fault.OTHER_FORMAT
    assert fault_of(FULL.name, flipped(packed, FIELDS["key_id"])) is Fault.FOREIGN
    assert fault_of(FULL.name, flipped(packed, FIELDS["nonce"])) is Fault.CORRUPT
    assert fault_of(FULL.name, flipped(packed, HEADER_SIZE + 5)) is Fault.CORRUPT
    assert fault_of(FULL.name, packed + b"x") is Fault.CORRUPT
    assert fault_of(FULL.name, random.Random(3).randbytes(len(packed))) is Fault.FOREIGN


@given(st.integers(0, len(FULL.packed()) - 1))
def test_no_beginning_opens(length: int) -> None:
    assert fault_of(FULL.name, FULL.packed()[:length]) is Fault.CUT_OFF


@given(st.binary(max_size=300))
def test_no_other_bytes_open(data: bytes) -> None:
    with pytest.raises(BadBlock):
        PACKER.unpack(FULL.name, data)
    with pytest.raises(BadBlock):
        PACKER.unpack(FULL.name, FULL.packed()[:HEADER_SIZE] + data)


def test_another_place_does_not_open() -> None:
    """Neither a whole block under another name, nor a header before another payload, though both are ours."""
    one, other = chain(tokens_of(2, 2 * BLOCK))
    assert fault_of(other.name, one.packed()) is Fault.FOREIGN
    tail, other_tail = TAIL, chain(tokens_of(3, 30))[0]
    assert fault_of(other_tail.name, tail.packed()) is Fault.CORRUPT
    swapped = one.packed()[:HEADER_SIZE] + other.packed()[HEADER_SIZE:]
    assert fault_of(one.name, swapped) is Fault.CORRUPT
    claimed = bytearray(one.packed())
    claimed[FIELDS["own"] : FIELDS["own"] + 16] = other.name
    assert fault_of(other.name, bytes(claimed)) is Fault.CORRUPT


def test_another_key_does_not_open() -> None:
    assert fault_of(FULL.name, FULL.packed(Packer(b"of another fleet"))) is Fault.FOREIGN
    # Even if it says that it is ours.
    forged = bytearray(FULL.packed(Packer(b"of another fleet")))
    forged[FIELDS["key_id"] : FIELDS["nonce"]] = PACKER.key_id
    assert fault_of(FULL.name, bytes(forged)) is Fault.CORRUPT


def test_sizes_that_a_header_claims_cost_nothing() -> None:
    """Numbers are looked at before memory is taken for them."""
    for field, kind, value in (("num_payload", "<Q", 1 << 62), ("num_state", "<Q", 1 << 62), ("num_tokens", "<I", 0)):
        claimed = bytearray(FULL.packed())
        struct.pack_into(kind, claimed, FIELDS[field], value)
        assert fault_of(FULL.name, bytes(claimed)) in (Fault.CUT_OFF, Fault.CORRUPT)


def test_a_state_of_another_size_than_said_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of somebody who has the key, too: nothing larger than the header says comes out of what was compressed."""
    state = np.zeros(5000, np.uint8)
    squeezed = packing.squeeze(state)

    def always(_state: State) -> tuple[Codec, memoryview]:
        return squeezed

    monkeypatch.setattr(packing, "squeeze", always)
    for said in (4999, 5001, 10):
        assert fault_of(FULL.name, replace(FULL, state=np.zeros(said, np.uint8)).packed()) is Fault.CORRUPT


def test_a_state_that_is_too_large_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_STATE", 1000)
    with pytest.raises(ValueError, match="too large"):
        FULL.packed()
