"""What one tenant may hold of files and batches at once, and what it holds.

A limit of an API key comes before the balancer's setting, which is for every tenant. What is compared is what the
tenant holds altogether, whichever of its keys it has that from.
"""

from __future__ import annotations

from msgspec import Struct

from paddler.batches.paging import Index
from paddler.batches.records import decode_file
from paddler.errors import BodyTooLarge, TenantBatchesFull, TenantLinesFull, TenantStorageFull
from paddler.store.client import Store
from paddler.store.keys import FileKeys
from paddler.tenants.records import ANONYMOUS, Limits

_FILE = "input_file_id"
RETRY_S = 60
"""Batches take minutes or hours."""


class Bound(Struct, frozen=True):
    """`name` says who has set it, in words."""

    most: int
    name: str


class Quota(Struct, frozen=True, kw_only=True):
    """None is no bound. Bytes of files, outputs of batches among them; batches that have not ended, and lines of the
    files that these read."""

    file_bytes: Bound | None = None
    open_batches: Bound | None = None
    batch_lines: Bound | None = None


NO_QUOTA = Quota()

_FLAGS = {
    "file_bytes": "--tenant-file-bytes",
    "open_batches": "--tenant-open-batches",
    "batch_lines": "--tenant-batch-lines",
}
_LIMITS = {"file_bytes": "max_file_bytes", "open_batches": "max_open_batches", "batch_lines": "max_batch_lines"}


def default_quota(**most: int | None) -> Quota:
    """Of the balancer's flags, by the names of `Quota`."""
    return Quota(
        **{name: Bound(value, f"{_FLAGS[name]} of the balancer") for name, value in most.items() if value is not None}
    )


def quota_of(limits: Limits | None, default: Quota) -> Quota:
    """Of a key with these limits; None is no key."""
    own: dict[str, Bound] = {}
    for name, limit in _LIMITS.items():
        most = None if limits is None else getattr(limits, limit)
        if most is not None:
            own[name] = Bound(most, f"`{limit}` of this API key")
    return Quota(**{name: own.get(name, getattr(default, name)) for name in _LIMITS})


def storage_full(bound: Bound, stored: int, more: int) -> TenantStorageFull:
    return TenantStorageFull(
        f"{bound.name} is {bound.most} bytes: the files of this tenant have {stored}, and this one has {more} or more; "
        "delete some.",
        param="file",
    )


def batches_full(bound: Bound, num_open: int) -> TenantBatchesFull:
    return TenantBatchesFull(
        f"{bound.name} is {bound.most}: {num_open} batches of this tenant have not ended; wait for one or cancel it.",
        retry_after_s=RETRY_S,
    )


def lines_full(bound: Bound, num_lines: int, more: int) -> TenantLinesFull | BodyTooLarge:
    """A file that is larger than all of it stays so, however long its client waits."""
    if more > bound.most:
        return BodyTooLarge(f"{bound.name} is {bound.most}, and this file has {more} lines; split it.", param=_FILE)
    return TenantLinesFull(
        f"{bound.name} is {bound.most}: batches of this tenant that have not ended have {num_lines} lines, and this "
        f"file {more}; wait for some to end.",
        param=_FILE,
        retry_after_s=RETRY_S,
    )


class OpenBatch(Struct, frozen=True):
    """What is known of a batch beside its record while it has not ended: a value of `FileKeys.open_batches`."""

    input_file_id: str
    tenant: str = ANONYMOUS
    num_lines: int = 0


def encode_open(one: OpenBatch) -> str:
    """As `open_batch.lua` reads it."""
    return f"{one.input_file_id} {one.tenant} {one.num_lines}"


def decode_open(value: bytes) -> OpenBatch:
    """Older versions wrote the file alone."""
    file_id, *others = value.decode().split(" ")
    return OpenBatch(file_id, others[0], int(others[1])) if len(others) == 2 else OpenBatch(file_id)


class Holding(Struct, kw_only=True):
    """What a tenant holds now."""

    tenant: str
    files: int = 0
    file_bytes: int = 0
    open_batches: int = 0
    batch_lines: int = 0


async def read_holdings(store: Store, *, tenant: str | None = None) -> list[Holding]:
    """Of all tenants that hold anything, by name, or of one. Raises what Redis raises."""
    keys = FileKeys(store.prefix)
    found: dict[str, Holding] = {}

    def of(name: str) -> Holding:
        return found.setdefault(name, Holding(tenant=name))

    async for record in Index(store.redis, keys.files(), keys.file, decode_file).records():
        one = of(record.tenant)
        one.files += 1
        one.file_bytes += record.num_bytes
    opened: dict[bytes, bytes] = await store.redis.hgetall(keys.open_batches())
    for value in opened.values():
        batch = decode_open(value)
        one = of(batch.tenant)
        one.open_batches += 1
        one.batch_lines += batch.num_lines
    return [found[name] for name in sorted(found) if tenant in (None, name)]
