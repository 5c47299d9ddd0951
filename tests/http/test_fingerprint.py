"""The digest of a body by which a repeat is known: the same for the same words, and never at the event loop's cost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.exceptions import ClientException

from api import fingerprint as module
from api.fingerprint import canonical, fingerprint

pytestmark = pytest.mark.anyio

ROUTE = "/v1/chat/completions"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def whole(body: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(body), order="deterministic")


@given(VALUES, st.sampled_from([None, 1, 3]))
def test_pieces_are_the_whole(value: object, indent: int | None) -> None:
    """Wherever it is taken apart, and however it is written."""
    body = json.dumps(value, indent=indent, ensure_ascii=indent is None).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", 8)
        assert b"".join(canonical(body)) == whole(body)


async def test_order_and_blanks_do_not_matter_and_nothing_else_is_lost() -> None:
    messages = [{"role": "user", "content": "x" * 50_000}, {"content": "é😀", "role": "user"}]
    body = json.dumps({"model": "default", "messages": messages, "n": 1}).encode()
    same = json.dumps({"n": 1, "messages": messages, "model": "default"}, indent=2, ensure_ascii=False).encode()
    other = json.dumps({"model": "default", "messages": messages[::-1], "n": 1}).encode()
    assert len(body) < module.AT_ONCE
    for text in (body, body.replace(b"x" * 50_000, b"x" * 500_000)):
        again = same if text is body else same.replace(b"x" * 50_000, b"x" * 500_000)
        assert await fingerprint(ROUTE, text) == await fingerprint(ROUTE, again)
        assert await fingerprint(ROUTE, text) != await fingerprint("/v1/completions", text)
        assert await fingerprint(ROUTE, text) != await fingerprint(ROUTE, other)
        expected = hashlib.sha256(ROUTE.encode() + b"\n" + whole(text)).hexdigest()[:32]
        assert await fingerprint(ROUTE, text) == expected, "balancers of other versions know it, too"


async def test_a_large_body_is_digested_in_pieces_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of msgspec, which holds Python's lock, makes more than a piece into objects."""
    made: list[tuple[int, bool]] = []
    decode = msgspec.json.decode

    def counting(data: bytes) -> object:
        made.append((len(data), threading.current_thread() is threading.main_thread()))
        return decode(data)

    monkeypatch.setattr(module.msgspec.json, "decode", counting)
    messages = [{"role": "user", "content": "word " * 1000} for _ in range(1000)]
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    await fingerprint(ROUTE, json.dumps({"model": "default", "messages": messages}).encode())
    turning.cancel()
    assert len(made) > 1000
    assert max(size for size, _ in made) <= module.AT_ONCE
    assert not any(is_main for _, is_main in made)
    assert turns > 0


async def test_what_is_nested_too_deeply_is_refused() -> None:
    for pad in (0, 100_000):
        body = b'{"a": "%b", "b": %b%b}' % (b"x" * pad, b"[" * 5000, b"]" * 5000)
        with pytest.raises(ClientException, match="nested too deeply"):
            await fingerprint(ROUTE, body)
