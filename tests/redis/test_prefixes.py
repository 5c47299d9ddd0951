"""Pinned prefixes in Redis: pinned, changed, followed, removed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from paddler.errors import Conflict, InvalidField, PrefixNotFound
from paddler.prefixes.checks import check_content, check_name
from paddler.prefixes.records import MAX_BYTES, MAX_PREFIXES
from paddler.prefixes.store import Pinned, Prefixes
from paddler.store.client import Store
from paddler.wire.agent import Generate, ImagePart, Message, Tool

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
RULES = Generate(messages=(Message("system", "Be brief."),))


@pytest.fixture
def prefixes(any_store: Store) -> Prefixes:
    return Prefixes(any_store)


async def pin(prefixes: Prefixes, name: str = "rules", content: Generate = RULES, tenant: str | None = None) -> Pinned:
    return await prefixes.pin("default", name, content, tenant=tenant, author="a test")


async def test_what_was_pinned_is_read(prefixes: Prefixes) -> None:
    made = await pin(prefixes, tenant="acme")
    assert made.is_new
    assert await prefixes.read("default") == (made.prefix,)
    assert await prefixes.content("default", made.prefix) == RULES
    assert (made.prefix.tenant, made.prefix.version, made.prefix.record.author) == ("acme", 1, "a test")
    assert made.prefix.record.created_ms > 1_600_000_000_000


async def test_the_same_is_no_change(prefixes: Prefixes) -> None:
    made = await pin(prefixes)
    again = await pin(prefixes)
    assert again == Pinned(made.prefix, is_new=False)


async def test_another_content_or_tenant_is_another_version(prefixes: Prefixes) -> None:
    first = await pin(prefixes)
    second = await pin(prefixes, tenant="acme")
    third = await pin(prefixes, content=Generate(prompt="Once upon a time"), tenant="acme")
    assert (second.prefix.version, third.prefix.version, third.is_new) == (2, 3, False)
    assert await prefixes.content("default", third.prefix) == Generate(prompt="Once upon a time")
    assert await prefixes.content("default", first.prefix) is None, "a tenant's is not for who knows everybody's"


async def test_a_version_is_never_given_twice(prefixes: Prefixes) -> None:
    made = await pin(prefixes)
    await prefixes.unpin("default", "rules")
    assert await prefixes.content("default", made.prefix) is None
    assert (await pin(prefixes)).prefix.version == 2


async def test_what_is_not_there(prefixes: Prefixes) -> None:
    for name in ("rules", ""):
        with pytest.raises(PrefixNotFound):
            await prefixes.unpin("default", name)
        with pytest.raises(PrefixNotFound):
            await prefixes.shown("default", name)


async def test_a_pool_has_so_many_at_most(prefixes: Prefixes) -> None:
    for number in range(MAX_PREFIXES):
        await pin(prefixes, f"p{number}")
    with pytest.raises(Conflict, match="64"):
        await pin(prefixes, "more")
    await pin(prefixes, "p7", Generate(prompt="another"))
    await prefixes.unpin("default", "p0")
    await pin(prefixes, "more")
    assert len(await prefixes.read("default")) == MAX_PREFIXES


async def test_hits_are_of_what_is_pinned_now(prefixes: Prefixes) -> None:
    await pin(prefixes)
    await prefixes.count_hits("default", {"rules": 2})
    await prefixes.count_hits("default", {"rules": 1})
    assert [one.hits for one in await prefixes.shown("default")] == [3]
    await pin(prefixes, content=Generate(prompt="another"))
    assert [one.hits for one in await prefixes.shown("default")] == [0]


async def test_changes_are_heard(prefixes: Prefixes) -> None:
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(prefixes.changes("default")) as changes:
        assert await anext(changes) == ()
        made = await pin(prefixes)
        assert await anext(changes) == (made.prefix,)
        await prefixes.unpin("default", "rules")
        assert await anext(changes) == ()


async def test_a_turn_is_one_agents(prefixes: Prefixes) -> None:
    assert await prefixes.take_turn("default", "rules", "one", lease_ms=5000)
    assert not await prefixes.take_turn("default", "rules", "other", lease_ms=5000)
    assert await prefixes.take_turn("default", "rules", "one", lease_ms=5000)
    await prefixes.take_turn("default", "rules", "one", lease_ms=0)
    assert await prefixes.take_turn("default", "rules", "other", lease_ms=5000)
    await prefixes.take_turn("default", "rules", "other", lease_ms=0)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (Generate(), "messages"),
        (Generate(messages=(Message("user", "a"),), prompt="a"), "prompt"),
        (Generate(prompt=""), "prompt"),
        (Generate(prompt="a", tools=(Tool("f", "{}"),)), "tools"),
        (Generate(prompt="x" * MAX_BYTES), "prompt"),
        (Generate(messages=(Message("system", "x" * MAX_BYTES),)), "messages"),
        (Generate(messages=(Message("user", "", parts=(ImagePart(b"x"),)),)), "messages[0].content[0]"),
    ],
)
def test_what_may_not_be_pinned(content: Generate, field: str) -> None:
    with pytest.raises(InvalidField) as told:
        check_content(content)
    assert told.value.param is not None
    assert told.value.param.startswith(field)


def test_names() -> None:
    check_name("rules-v1.2_b")
    for name in ("", "a b", "-a", "x" * 64, "ä", "a:b"):
        with pytest.raises(InvalidField):
            check_name(name)
