"""The detokenizer: no split of the bytes into pieces may be visible in the text."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from paddler.detokenizer import Detokenizer

# A small alphabet makes stop strings overlap each other and the text; the emoji and the é span bytes.
ALPHABET = "ab\n🙂é"
texts = st.text(ALPHABET, max_size=30)
stops = st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def run(pieces: list[bytes], stop: list[str], skip: int = 0) -> str:
    detokenizer = Detokenizer(stop, skip=skip)
    return "".join([*(detokenizer.push(piece) for piece in pieces), detokenizer.flush()])


def expected(text: str, stop: list[str]) -> str:
    """By definition: the shortest beginning of the text that ends with a stop string, less that string."""
    for end in range(len(text) + 1):
        matching = [word for word in stop if text[:end].endswith(word)]
        if matching:
            return text[: end - max(map(len, matching))]
    return text


@given(texts, stops, st.lists(st.integers(0, 200), max_size=20))
def test_the_text_is_the_same_for_every_split(text: str, stop: list[str], cuts: list[int]) -> None:
    assert run(split(text.encode(), cuts), stop) == expected(text, stop)


@given(texts, stops, st.lists(st.integers(0, 200), max_size=20))
def test_it_tells_which_stop_string_has_ended_the_text(text: str, stop: list[str], cuts: list[int]) -> None:
    detokenizer = Detokenizer(stop)
    for piece in split(text.encode(), cuts):
        detokenizer.push(piece)
    detokenizer.flush()
    ended = expected(text, stop)
    word = detokenizer.stopped_by
    assert (word is not None) == any(one in text for one in stop)
    if word is not None:
        assert word in stop
        assert text.startswith(ended + word)
        assert not any(one in text[: len(ended + word) - 1] for one in stop), "another one was complete before"


@given(st.binary(max_size=30), st.lists(st.integers(0, 200), max_size=20))
def test_invalid_bytes_become_replacement_characters(data: bytes, cuts: list[int]) -> None:
    assert run(split(data, cuts), []) == data.decode("utf-8", "replace")


@given(texts, stops)
def test_nothing_is_held_back_longer_than_needed(text: str, stop: list[str]) -> None:
    detokenizer = Detokenizer(stop)
    released = ""
    for end in range(1, len(text) + 1):
        released += detokenizer.push(text[end - 1].encode())
        if detokenizer.is_stopped:
            return
        held = text[:end].removeprefix(released)
        assert not held or any(word.startswith(held) and word != held for word in stop)


@given(texts, stops, st.lists(st.integers(0, 200), max_size=20), st.integers(0, 20))
def test_a_replay_gives_only_what_the_client_lacks(text: str, stop: list[str], cuts: list[int], at: int) -> None:
    pieces = split(text.encode(), cuts)
    first = Detokenizer(stop)
    sent = "".join(first.push(piece) for piece in pieces[:at])
    assert sent + run(pieces, stop, skip=len(sent)) == expected(text, stop)


def test_a_client_that_has_more_than_the_replay_releases_gets_nothing_twice() -> None:
    detokenizer = Detokenizer(["END"], skip=4)
    assert [detokenizer.push(piece) for piece in (b"abE", b"xyz")] == ["", "yz"]


def test_incomplete_utf8_waits_and_is_replaced_at_the_end() -> None:
    detokenizer = Detokenizer()
    smile = "🙂".encode()
    assert detokenizer.push(b"a" + smile[:3]) == "a"
    assert detokenizer.push(smile[3:]) == "🙂"
    assert detokenizer.push(smile[:2]) == ""
    assert detokenizer.flush() == "\ufffd"


def test_a_stop_string_across_pieces_is_not_part_of_the_text() -> None:
    detokenizer = Detokenizer(["\n\nUser:"])
    assert [detokenizer.push(piece) for piece in (b"Hi.\n", b"\nUs", b"er: more", b"x")] == ["Hi.", "", "", ""]
    assert detokenizer.is_stopped
    assert detokenizer.flush() == ""
