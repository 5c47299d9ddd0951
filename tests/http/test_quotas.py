"""What one tenant may hold of files and batches: by limits of its key, else by the balancer's setting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from balancer_process import StartBalancer
from click.testing import CliRunner
from http_harness import HttpBalancer, NewBalancer
from openai import APIStatusError, AsyncOpenAI

from paddler.batches.batches import Batches
from paddler.batches.contents import RedisContents
from paddler.batches.files import Files, Upload
from paddler.batches.quota import NO_QUOTA, Bound, OpenBatch, Quota, decode_open, default_quota, encode_open, quota_of
from paddler.batches.records import Batch, decode_batch
from paddler.cli import cli
from paddler.clock import SystemClock
from paddler.errors import StorageFull, TenantStorageFull
from paddler.store.client import Store
from paddler.store.keys import FileKeys, batch_jobs_key
from paddler.store.tenant_keys import TenantKeys
from paddler.tenants.keys import ApiKeys, NewKey
from paddler.tenants.records import Limits

pytestmark = pytest.mark.anyio

LINE = b'{"custom_id": "1"}\n'
NewClient = Callable[[HttpBalancer, NewKey | None], AsyncOpenAI]


@pytest.fixture
async def client_of() -> AsyncIterator[NewClient]:
    async with AsyncExitStack() as stack:
        clients: list[AsyncOpenAI] = []

        def build(balancer: HttpBalancer, new: NewKey | None) -> AsyncOpenAI:
            key = "none" if new is None else new.secret
            clients.append(AsyncOpenAI(base_url=f"{balancer.url()}/v1", api_key=key, max_retries=0, timeout=20))
            stack.push_async_exit(clients[-1])
            return clients[-1]

        yield build


@pytest.fixture(autouse=True)
async def ended_batches(store: Store) -> AsyncIterator[None]:
    """No worker is there to end them."""
    yield
    await end_batches(store)
    await store.redis.delete(batch_jobs_key(store.prefix))


async def end_batches(store: Store) -> None:
    batches = Batches(store, SystemClock())
    for name in await store.redis.hkeys(FileKeys(store.prefix).open_batches()):
        assert await batches.take(name.decode(), "test", lease_ms=60_000)
        await batches.end(name.decode(), "test", lambda batch: batch)


async def upload(client: AsyncOpenAI, data: bytes = LINE) -> str:
    return (await client.files.create(file=("in.jsonl", data), purpose="batch")).id


async def begin(client: AsyncOpenAI, file_id: str) -> str:
    made = await client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    return made.id


async def outcome(asking: Any) -> tuple[int, str]:
    """Status and code of what the client is told; 200 and the id."""
    try:
        return 200, await asking
    except APIStatusError as error:
        return error.status_code, str(error.code)


async def test_bytes_of_two_tenants_at_once(balancer: HttpBalancer, client_of: NewClient) -> None:
    alice = client_of(balancer, await balancer.new_key("alice", max_file_bytes=2500))
    bob = client_of(balancer, await balancer.new_key("bob"))
    of_alice, of_bob = await asyncio.gather(
        asyncio.gather(*(outcome(upload(alice, b"x" * 1000)) for _ in range(6))),
        asyncio.gather(*(outcome(upload(bob, b"x" * 1000)) for _ in range(6))),
    )
    assert [status for status, _ in of_bob] == [200] * 6
    kept = [file_id for status, file_id in of_alice if status == 200]
    assert len(kept) == 2, "as many as there is room for"
    assert {one for one in of_alice if one[0] != 200} == {(413, "tenant_storage_full")}
    with pytest.raises(APIStatusError) as refused:
        await upload(alice, b"x" * 501)
    assert "`max_file_bytes` of this API key is 2500 bytes" in refused.value.message
    assert "have 2000" in refused.value.message
    assert refused.value.response.json()["error"]["type"] == "invalid_request_error"
    await upload(alice, b"x" * 500)
    await alice.files.delete(kept[0])
    await upload(alice, b"x" * 1000)
    assert len((await alice.files.list()).data) == 3


async def test_an_upload_that_has_become_too_much_meanwhile(store: Store) -> None:
    """Two that had room as they began: the second is told at its end, and nothing is left of it."""
    files = Files(store, RedisContents(store), SystemClock())
    quota = Quota(file_bytes=Bound(1000, "the bound"))
    uploads = [await files.begin(tenant="alice", quota=quota) for _ in range(2)]
    for one in uploads:
        await one.write(b"x" * 600)
    kept = await files.finish(uploads[0], filename="a", purpose="batch", lifetime_s=3600)
    with pytest.raises(TenantStorageFull, match="the bound is 1000 bytes"):
        await files.finish(uploads[1], filename="b", purpose="batch", lifetime_s=3600)
    await uploads[1].abort()
    other = await files.begin(tenant="bob", quota=quota)
    await other.write(b"x" * 600)
    both = [kept, await files.finish(other, filename="c", purpose="batch", lifetime_s=3600)]
    listed = await files.list(limit=10, newest_first=False)
    assert sorted(one.id for one in listed.items) == sorted(one.id for one in both)
    for one in both:
        await files.delete(one.id)


async def test_of_uploads_that_end_together_as_many_are_kept_as_there_is_room_for(store: Store) -> None:
    """Through two balancers, as it were. One that has died in its turn holds them up for its lease."""
    both = [Files(store, RedisContents(store), SystemClock()) for _ in range(2)]
    quota = Quota(file_bytes=Bound(1000, "the bound"))

    async def finish(files: Files, one: Upload) -> str | None:
        try:
            return (await files.finish(one, filename="a", purpose="batch", lifetime_s=3600)).id
        except TenantStorageFull:
            await one.abort()
            return None

    await store.leases.lead(TenantKeys(store.prefix, "alice").finishing(), "dead", lease_ms=100)
    for _ in range(5):
        uploads = [await files.begin(tenant="alice", quota=quota) for files in both]
        for one in uploads:
            await one.write(b"x" * 600)
        found = await asyncio.gather(*(finish(files, one) for files, one in zip(both, uploads, strict=True)))
        kept = [file_id for file_id in found if file_id]
        assert len(kept) == 1
        await both[0].delete(kept[0])


async def test_the_last_file_that_there_may_be(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at once it is there does not count it twice."""
    monkeypatch.setattr("paddler.batches.files.MAX_FILES", 1)
    files = Files(store, RedisContents(store), SystemClock())
    upload = await files.begin(tenant="alice", quota=Quota(file_bytes=Bound(100, "`max_file_bytes` of this API key")))
    await upload.write(LINE)
    record = await files.finish(upload, filename="in.jsonl", purpose="batch", lifetime_s=60)
    assert (await files.get(record.id)).num_bytes == len(LINE)
    with pytest.raises(StorageFull, match="1 files already"):
        await files.begin(tenant="alice")
    await files.delete(record.id)


async def test_open_batches_of_two_tenants_at_once(balancer: HttpBalancer, client_of: NewClient, store: Store) -> None:
    alice = client_of(balancer, await balancer.new_key("alice", max_open_batches=2))
    bob = client_of(balancer, await balancer.new_key("bob", max_open_batches=100))
    files = {client: await upload(client) for client in (alice, bob)}
    of_alice, of_bob = await asyncio.gather(
        *(asyncio.gather(*(outcome(begin(one, files[one])) for _ in range(6))) for one in (alice, bob))
    )
    assert [status for status, _ in of_bob] == [200] * 6
    assert sorted(status for status, _ in of_alice) == [200, 200, 429, 429, 429, 429], "counted in one step"
    assert len((await alice.batches.list()).data) == 2, "what was refused is in no list"
    with pytest.raises(APIStatusError) as refused:
        await begin(alice, files[alice])
    assert (refused.value.code, refused.value.type) == ("tenant_batches_full", "rate_limit_error")
    assert "`max_open_batches` of this API key is 2" in refused.value.message
    assert int(refused.value.response.headers["retry-after"]) > 0
    await end_batches(store)
    await begin(alice, files[alice])


async def test_lines_of_open_batches(balancer: HttpBalancer, client_of: NewClient, store: Store) -> None:
    alice = client_of(balancer, await balancer.new_key("alice", max_batch_lines=5))
    bob = client_of(balancer, await balancer.new_key("bob", max_batch_lines=5))
    three, six = await upload(alice, LINE * 3), await upload(alice, LINE * 6)
    of_bob = await upload(bob, LINE * 3)
    await asyncio.gather(begin(alice, three), begin(bob, of_bob))
    with pytest.raises(APIStatusError) as refused:
        await begin(alice, three)
    assert (refused.value.status_code, refused.value.code) == (429, "tenant_lines_full")
    assert "`max_batch_lines` of this API key is 5" in refused.value.message
    assert "have 3 lines" in refused.value.message
    await begin(alice, await upload(alice, LINE * 2))
    with pytest.raises(APIStatusError) as too_large:
        await begin(alice, six)
    assert (too_large.value.status_code, too_large.value.param) == (413, "input_file_id"), "waiting would not help"
    await end_batches(store)
    await begin(alice, three)


async def test_the_balancers_setting_is_for_who_has_no_limit(new_balancer: NewBalancer, client_of: NewClient) -> None:
    quota = default_quota(file_bytes=1000, open_batches=1, batch_lines=None)
    balancer = await new_balancer(quota=quota)
    anybody = client_of(balancer, None)
    await begin(anybody, await upload(anybody))
    with pytest.raises(APIStatusError, match="--tenant-open-batches of the balancer is 1"):
        await begin(anybody, await upload(anybody))
    with pytest.raises(APIStatusError, match="--tenant-file-bytes of the balancer is 1000"):
        await upload(anybody, b"x" * 1000)
    alice = client_of(balancer, await balancer.new_key("alice", max_file_bytes=2000))
    file_id = await upload(alice, LINE * 100)
    await begin(alice, file_id)
    with pytest.raises(APIStatusError, match="--tenant-open-batches"):
        await begin(alice, file_id)


async def test_the_flags_of_the_balancer(start: StartBalancer, store: Store) -> None:
    flags = ("--tenant-file-bytes", "10", "--tenant-open-batches", "1", "--tenant-batch-lines", "1")
    balancer = await start(store, *flags)
    async with AsyncOpenAI(base_url=f"{balancer.addresses['inference']}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(APIStatusError, match="--tenant-file-bytes"):
            await upload(client, b"x" * 11)
        file_id = await upload(client, b"a\nb")
        with pytest.raises(
            APIStatusError, match="--tenant-batch-lines of the balancer is 1, and this file has 2 lines"
        ):
            await begin(client, file_id)


async def test_what_tenants_hold_is_shown(balancer: HttpBalancer, client_of: NewClient, store: Store) -> None:
    operator = await balancer.new_key("operator", "management")
    alice = client_of(balancer, await balancer.new_key("alice", max_batch_lines=50))
    bob = client_of(balancer, await balancer.new_key("bob"))
    await begin(alice, await upload(alice, LINE * 40))
    await upload(bob, b"x" * 1500)
    holdings = [
        {"tenant": "alice", "files": 1, "file_bytes": 40 * len(LINE), "open_batches": 1, "batch_lines": 40},
        {"tenant": "bob", "files": 1, "file_bytes": 1500, "open_batches": 0, "batch_lines": 0},
    ]
    async with balancer.http("management", operator.secret) as http:
        assert (await http.get("/api/v1/usage")).json()["held"] == holdings
        assert (await http.get("/api/v1/usage", params={"tenant": "bob"})).json()["held"] == holdings[1:]
    where = {"PADDLER_REDIS_URL": store.url, "PADDLER_REDIS_PREFIX": store.prefix, "COLUMNS": "80"}
    shown = await asyncio.to_thread(CliRunner().invoke, cli, ["usage"], env=where)
    words = shown.output.split()
    assert shown.exit_code == 0
    assert [f"{40 * len(LINE):,}", "1", "40"] == words[words.index("alice") + 2 : words.index("alice") + 5]
    assert "1,500" in words
    listed = await asyncio.to_thread(CliRunner().invoke, cli, ["keys", "list"], env=where)
    assert "50 lines in batches" in " ".join(listed.output.split())


async def test_lines_of_an_upload_are_counted_as_they_come(store: Store) -> None:
    files = Files(store, RedisContents(store), SystemClock())
    ways = {(b"a\nb\n",): 2, (b"a\nb",): 2, (b"a", b"a\n", b"", b"b"): 2, (b"", b""): 0, (b"\n",): 1}
    for pieces, num in ways.items():
        begun = await files.begin()
        for piece in pieces:
            await begun.write(piece)
        assert begun.num_lines == num, pieces


async def test_limits_come_by_command_too(store: Store) -> None:
    where = {"PADDLER_REDIS_URL": store.url, "PADDLER_REDIS_PREFIX": store.prefix}
    flags = ("--max-file-bytes", "1000", "--max-open-batches", "3", "--max-batch-lines", "500")
    made = await asyncio.to_thread(CliRunner().invoke, cli, ["keys", "create", "alice", *flags], env=where)
    assert made.exit_code == 0, made.output
    (key,) = await ApiKeys(store, SystemClock()).list()
    limits = key.limits
    assert (limits.max_file_bytes, limits.max_open_batches, limits.max_batch_lines) == (1000, 3, 500)


async def test_a_keys_own_limit_comes_first() -> None:
    default = default_quota(file_bytes=10, open_batches=None, batch_lines=30)
    assert quota_of(None, default) == default
    assert quota_of(Limits(), NO_QUOTA) == NO_QUOTA
    own = quota_of(Limits(max_file_bytes=7), default)
    assert own.file_bytes == Bound(7, "`max_file_bytes` of this API key")
    assert (own.open_batches, own.batch_lines) == (None, default.batch_lines)


async def test_what_is_kept_of_an_open_batch() -> None:
    one = OpenBatch("file-1", "alice", 7)
    assert decode_open(encode_open(one).encode()) == one
    assert decode_open(b"file-1") == OpenBatch("file-1", "anonymous", 0), "as older versions wrote it"


async def test_a_batch_that_is_refused_leaves_nothing(store: Store) -> None:
    keys, batches = FileKeys(store.prefix), Batches(store, SystemClock())
    kept = await _batch(batches, "batch_a", Quota())
    assert await store.redis.hget(keys.open_batches(), kept.id) == b"file-1 alice 4"
    again = await store.batch_scripts.open_batch(
        keys.open_batches(), kept.id, input_file_id="file-1", tenant="alice", num_lines=4, max_all=1, max_batches=1
    )
    assert again.outcome == "ok", "once more changes nothing"
    with pytest.raises(Exception, match="the bound is 1"):
        await _batch(batches, "batch_b", Quota(open_batches=Bound(1, "the bound")))
    assert await store.redis.exists(keys.batch("batch_b")) == 0
    assert await store.redis.zrange(keys.batches(), 0, -1) == [b"batch_a"]
    assert decode_batch(await store.redis.get(keys.batch("batch_a"))) == kept


async def _batch(batches: Batches, batch_id: str, quota: Quota) -> Batch:
    batch = Batch(
        id=batch_id,
        endpoint="/v1/chat/completions",
        input_file_id="file-1",
        completion_window="24h",
        created_at=1,
        expires_at=86_401,
        output_ttl_s=3600,
        tenant="alice",
    )
    await batches.create(batch, num_lines=4, quota=quota)
    return batch
