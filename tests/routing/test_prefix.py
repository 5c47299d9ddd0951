"""The prefix chain: what begins alike has the same entries, whatever follows; nothing else has."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paddler.routing.prefix import BLOCK_BYTES, IMAGE_BYTES, MAX_ENTRIES, PrefixChain, prefix_chain, without_images
from paddler.wire.agent import Generate, ImagePart, Message, TextPart


def repeated(text: str, times: int) -> str:
    return text * times


TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=20),  # lone surrogates too
    st.builds(repeated, st.text("aé漢", min_size=1, max_size=40), st.integers(1, 400)),
)
MESSAGES = st.lists(st.builds(Message, TEXTS, TEXTS, st.none() | TEXTS), min_size=1, max_size=40).map(tuple)
SHORT = st.text("ab\0\x7f", max_size=3)
SHORT_MESSAGES = st.lists(st.builds(Message, SHORT, SHORT, st.none() | SHORT), max_size=3).map(tuple)


def talk(*messages: Message) -> Generate:
    return Generate(messages=messages)


def chain_of(payload: Generate, pool: str = "default", tenant: str | None = "ann") -> PrefixChain:
    return prefix_chain(payload, pool=pool, tenant=tenant)


def common(one: PrefixChain, other: PrefixChain) -> int:
    """How many entries both begin with."""
    pairs = zip(one.hashes, other.hashes, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one.hashes), len(other.hashes)))


@given(MESSAGES, MESSAGES)
def test_a_continuation_begins_with_the_chain_of_what_it_continues(
    said: tuple[Message, ...], more: tuple[Message, ...]
) -> None:
    short, long = chain_of(talk(*said)), chain_of(talk(*said, *more))
    assert long.hashes[: len(short.hashes)] == short.hashes
    assert long.ends[: len(short.ends)] == short.ends


@given(st.integers(0, 60_000), st.integers(1, 60_000), st.integers(1, 900_000))
@example(60_000, 1, 900_000)
def test_raw_prompts_share_every_entry_within_what_they_share(shared: int, one: int, other: int) -> None:
    """Prompts of different lengths: where entries end depends on the bytes before, never on the length."""
    beginning = "x" * shared
    first = chain_of(Generate(prompt=beginning + "y" * one))
    second = chain_of(Generate(prompt=beginning + "z" * other))
    num_common = common(first, second)
    assert first.ends[:num_common] == second.ends[:num_common]
    within = [end for end in first.ends if end <= 1 + shared]  # a raw prompt begins with one byte that says so
    assert num_common == len(within) == len([end for end in second.ends if end <= 1 + shared])


def test_prompts_of_tokens_and_with_a_gap_share_only_with_their_kind() -> None:
    ids = tuple(range(300))
    same, longer = chain_of(Generate(prompt_ids=ids)), chain_of(Generate(prompt_ids=(*ids, 7)))
    assert common(same, longer) == len(same.hashes) > 3
    text = "x" * 2000
    gap, other = (chain_of(Generate(prompt=text, suffix=suffix)) for suffix in ("a", "b"))
    assert common(gap, other) == len(gap.hashes) > 3
    assert common(gap, chain_of(Generate(prompt=text))) == 0


@given(MESSAGES, st.integers(0, 5_000), TEXTS, TEXTS)
def test_messages_that_begin_alike_share_the_entries_of_their_beginning(
    said: tuple[Message, ...], shared: int, one: str, other: str
) -> None:
    before = chain_of(talk(*said))
    first = chain_of(talk(*said, Message("user", "x" * shared + one)))
    second = chain_of(talk(*said, Message("user", "x" * shared + other)))
    until = before.num_bytes + len("user") + 2 + shared
    assert common(first, second) >= len([end for end in first.ends if end <= until])
    assert [end for end in first.ends if end <= until] == [end for end in second.ends if end <= until]


@given(MESSAGES)
def test_entries_rise_are_bounded_and_lie_within_the_conversation(said: tuple[Message, ...]) -> None:
    chain = chain_of(talk(*said))
    assert len(chain.hashes) == len(chain.ends) <= MAX_ENTRIES
    assert all(len(digest) == 8 for digest in chain.hashes)
    assert list(chain.ends) == sorted(set(chain.ends))
    assert all(0 < end <= chain.num_bytes for end in chain.ends)
    assert chain.ends, "even the shortest conversation has an entry at its end"


@given(SHORT_MESSAGES, SHORT_MESSAGES)
def test_only_equal_conversations_hash_equally(one: tuple[Message, ...], other: tuple[Message, ...]) -> None:
    first, second = chain_of(talk(*one)), chain_of(talk(*other))
    is_same = first.num_bytes == second.num_bytes and first.hashes == second.hashes
    assert is_same == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (talk(Message("user", "ab")), talk(Message("usera", "b"))),
        (talk(Message("user", "a"), Message("user", "b")), talk(Message("user", "auserb"))),
        (talk(Message("user", "a", "b")), talk(Message("user", "ab"))),
        (talk(Message("user", "a", "")), talk(Message("user", "a"))),
        (talk(Message("", "")), talk(Message("", ""), Message("", ""))),
        (talk(Message("user", "\ud800\udc00")), talk(Message("user", "\U00010000"))),
    ],
)
def test_look_alikes_differ(one: Generate, other: Generate) -> None:
    assert chain_of(one).hashes[-1] != chain_of(other).hashes[-1]


def test_a_prompt_is_no_message() -> None:
    long = "a" * 3 * BLOCK_BYTES
    assert common(chain_of(Generate(prompt=long)), chain_of(talk(Message("user", long)))) == 0


@pytest.mark.parametrize(
    "salt", [("other", "ann"), ("default", "bob"), ("default", ""), ("default", None), ("defaultann", "")]
)
def test_pools_and_tenants_share_nothing(salt: tuple[str, str | None]) -> None:
    payload = talk(Message("system", "You are helpful. " * 100), Message("user", "Hi"))
    mine, theirs = chain_of(payload), chain_of(payload, *salt)
    assert mine.ends == theirs.ends
    assert not set(mine.hashes) & set(theirs.hashes)


def test_tenants_share_caches_when_the_operator_says_so() -> None:
    payload = talk(Message("user", "Hi"))
    assert chain_of(payload, tenant=None) == chain_of(payload, tenant=None)


def test_the_name_counts_before_the_content() -> None:
    """Templates render it first: with another name, nothing of the content is cached."""
    content = "x" * 2_000
    assert common(chain_of(talk(Message("user", content, "ann"))), chain_of(talk(Message("user", content, "bob")))) == 0


def test_what_an_answer_begins_with_is_how_its_turn_begins() -> None:
    asked, text = Message("user", "hello"), "Once upon a time " * 100
    begun = chain_of(Generate(messages=(asked,), beginning=text))
    whole = chain_of(Generate(messages=(asked, Message("assistant", text + "there was a fox."))))
    assert len(begun.hashes) > 5
    assert whole.hashes[: len(begun.hashes)] == begun.hashes
    assert chain_of(Generate(messages=(asked,))).num_bytes < begun.num_bytes


def test_what_is_sampled_does_not_count() -> None:
    said = (Message("user", "Hi"),)
    assert chain_of(Generate(messages=said)) == chain_of(Generate(messages=said, max_tokens=3, stop=("x",)))


def test_the_end_of_every_message_is_an_entry_while_messages_are_few() -> None:
    said = [Message("system", "You are helpful."), Message("user", "Hi"), Message("assistant", "Hello!")]
    ends = [chain_of(talk(*said[:count])).num_bytes for count in (1, 2, 3)]
    assert list(chain_of(talk(*said)).ends) == ends


@pytest.mark.parametrize("message_chars", [40, 300, 1_500, 20_000, 10**7])
def test_a_long_match_is_located_to_within_a_sixth(message_chars: int) -> None:
    num_messages = max(300_000 // message_chars, 1)
    chain = chain_of(talk(*(Message("user", "x" * message_chars) for _ in range(num_messages))))
    steps = list(zip(chain.ends, chain.ends[1:], strict=False))
    assert all(end - begin <= end / 6 for begin, end in steps if begin >= 6 * 1024)
    assert chain.ends[-1] >= min(chain.num_bytes * 5 / 6, 375 * 1024), "deep entries are there"


def test_packing() -> None:
    chain = chain_of(talk(Message("user", "x" * 1_000)))
    packed = chain.pack()
    assert len(packed) == 12 * len(chain.ends)
    assert packed[:12] == chain.hashes[0] + chain.ends[0].to_bytes(4, "big")
    assert PrefixChain.unpack(packed, chain.num_bytes) == chain


def test_ends_in_tokens_are_rounded_down() -> None:
    chain = PrefixChain((b"a" * 8, b"b" * 8), (7, 256), 300)
    assert chain.in_tokens(3.5) == ((b"a" * 8, 2), (b"b" * 8, 73))


def test_the_chain_of_a_conversation_is_pinned() -> None:
    """Balancers and agents of different versions must agree on it; a change empties every cache's index once."""
    chain = chain_of(talk(Message("system", "You are helpful."), Message("user", "Grüße! " * 50, "ann")))
    assert chain.ends == PINNED_ENDS
    assert [digest.hex() for digest in chain.hashes] == PINNED_HASHES


PINNED_ENDS = (25, 281, 486)
PINNED_HASHES = ["39e93356e0d70651", "acc9be00b1542aa8", "1e434cacab7c0704"]


def seen(*content: str | bytes) -> Message:
    parts = tuple(TextPart(one) if isinstance(one, str) else ImagePart(one) for one in content)
    return Message("user", "\n".join(one for one in content if isinstance(one, str)), parts=parts)


CAT, DOG = b"a file with a cat" * 1000, b"a file with a dog" * 1000


def test_an_image_counts_for_its_bytes_and_its_place() -> None:
    contents = [
        ("see", CAT), (CAT, "see"), ("see", DOG), ("see", CAT, CAT), ("s", CAT, "ee"), ("s", "ee", CAT),
    ]  # fmt: skip
    chains = [chain_of(talk(seen(*content))) for content in contents]
    assert len({chain.hashes[-1] for chain in chains}) == len(contents)
    assert chain_of(talk(seen("see", CAT))) == chains[0]
    assert all(one.hashes[-1] not in other.hashes for one in chains for other in chains if one is not other)


def test_an_image_weighs_the_same_whatever_its_size() -> None:
    without, small, large = (chain_of(talk(seen("see", *image))) for image in ((), (b"x",), (CAT,)))
    assert small.num_bytes == large.num_bytes == without.num_bytes + 1 + IMAGE_BYTES


def test_conversations_share_what_is_before_another_image() -> None:
    beginning = Message("system", "x" * 600)
    one, other = (chain_of(talk(beginning, seen("see", image))) for image in (CAT, DOG))
    assert 0 < common(one, other) < len(one.hashes)
    assert one.ends[common(one, other) - 1] >= 600


def test_messages_of_text_alone_have_the_chain_they_had() -> None:
    """Agents and balancers of different versions meet at it."""
    chain = chain_of(talk(Message("user", "hi", parts=())))
    assert chain == chain_of(talk(Message("user", "hi")))


def test_a_digest_stands_for_an_image() -> None:
    payload = talk(seen("see", CAT, "and", DOG), Message("assistant", "yes"))
    light = without_images(payload)
    assert chain_of(light) == chain_of(payload)
    assert without_images(light) == light
    assert light.messages is not None
    assert max(len(part.data) for part in light.messages[0].parts if isinstance(part, ImagePart)) == 16
    text = talk(Message("user", "hi"))
    assert without_images(text) is text
