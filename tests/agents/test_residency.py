"""What the agent publishes of its KV cache follows what the engine says, and nothing is kept for longer."""

from __future__ import annotations

from paddler.jobs.chains import hash_text
from paddler.routing.prefix import prefix_chain
from paddler.wire.agent import Generate, ImagePart, Message, TextPart, encode_payload
from workers.agent.residency import Residency

LONG = "be kind " * 200
ASKED = Generate(messages=(Message("system", LONG), Message("user", "hello")))
ANSWERED = Generate(messages=(*(ASKED.messages or ()), Message("assistant", "good day")))


def hashes(payload: Generate) -> set[str]:
    return set(map(hash_text, prefix_chain(payload, pool="default", tenant=None).hashes))


def published(residency: Residency) -> set[str]:
    return set(residency.all())


def is_empty(residency: Residency) -> bool:
    return not (residency._payloads or residency._held or residency._counts or residency._num_tokens)


def test_the_prompt_is_held_then_the_conversation_then_nothing() -> None:
    residency = Residency("default")
    residency.began("a", ASKED)
    assert published(residency) == set()
    residency.retained("a", 300, 300)
    assert published(residency) == hashes(ASKED)
    assert (residency.num_held, residency.num_tokens) == (1, 300)
    residency.ended("a", "good day")
    residency.retained("a", 310, 310)
    assert published(residency) == hashes(ANSWERED)
    residency.retained("a", 150, 310)
    assert set() < published(residency) < hashes(ASKED)
    assert residency.num_tokens == 150
    residency.retained("a", 0, 150)
    assert published(residency) == set()
    assert is_empty(residency)


def test_a_short_conversation_is_kept_until_it_is_gone_too() -> None:
    residency = Residency("default")
    residency.began("a", Generate(prompt="hi"))
    residency.retained("a", 1, 1)
    residency.ended("a", " there " * 200)
    residency.retained("a", 300, 300)
    assert published(residency), "with its answer it is long enough to be known"
    residency.retained("a", 0, 300)
    assert is_empty(residency)


def test_what_was_never_held_is_forgotten_at_its_end() -> None:
    """Cancelled before it was prefilled, or refused, or lost to another agent: no word of it will come."""
    residency = Residency("default")
    residency.began("cancelled", ASKED)
    residency.ended("cancelled", "")
    residency.began("refused", ASKED)
    residency.dropped("refused")
    residency.retained("cancelled", 0, 0)
    residency.retained("unknown", 7, 7)
    assert is_empty(residency)


def test_a_preempted_one_is_held_until_it_is_evicted() -> None:
    residency = Residency("default")
    residency.began("a", ASKED)
    residency.retained("a", 300, 300)
    residency.dropped("a")
    residency.retained("a", 320, 320)
    assert published(residency) == hashes(ASKED)
    residency.retained("a", 0, 320)
    assert is_empty(residency)


def test_what_two_sequences_begin_with_is_held_until_both_are_gone() -> None:
    residency = Residency("default")
    for name in ("a", "b"):
        residency.began(name, ASKED)
        residency.retained(name, 300, 300)
    residency.retained("a", 0, 300)
    assert published(residency) == hashes(ASKED)
    residency.retained("b", 0, 300)
    assert is_empty(residency)


def test_images_are_held_as_digests() -> None:
    """64 parked conversations with eight images each would fill the memory."""
    asked = Generate(messages=(Message("user", "see", parts=(TextPart("see"), ImagePart(b"image" * 10_000))),))
    residency = Residency("default")
    residency.began("a", asked)
    residency.retained("a", 300, 300)
    assert published(residency) == hashes(asked)
    [kept] = residency._payloads.values()
    assert len(encode_payload(kept)) < 200
