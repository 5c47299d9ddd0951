"""Files: their records in Redis, their contents wherever they are kept."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Generator

from paddler.batches.contents import CHUNK, Contents
from paddler.batches.paging import Index, Page
from paddler.batches.quota import NO_QUOTA, Bound, Quota, decode_open, storage_full
from paddler.batches.records import FileRecord, Purpose, decode_file, encode
from paddler.clock import Clock
from paddler.errors import BodyTooLarge, Conflict, FileElsewhere, FileNotFound, QueueUnavailable, StorageFull
from paddler.ids import new_file_id
from paddler.store.client import TROUBLE, Store
from paddler.store.keys import FileKeys
from paddler.store.tenant_keys import TenantKeys
from paddler.tenants.records import ANONYMOUS

MAX_FILE = 200 * 1024 * 1024
MAX_STORED = 2 * 1024**3
MAX_FILES = 10_000
TURN_MS = 10_000
TURN_POLL_S = 0.02
"""Uploads of a tenant with a bound are made whole one after the other; who has died in it holds up the next so long."""
UPLOAD_S = 3600
"""How long an upload may take, without its being whole."""
LIFETIME_S = 30 * 86_400

_ID = re.compile(r"file-[A-Za-z0-9_-]{22}")


@contextlib.contextmanager
def told_as_unavailable() -> Generator[None]:
    """What Redis raises becomes `QueueUnavailable`, and of a directory what its disk raises, too."""
    try:
        yield
    except TROUBLE as error:
        raise QueueUnavailable("the storage of files cannot be reached or is full.", retry_after_s=1) from error


class Files:
    """`max_file` and `max_stored` are bytes: of one file, and of all together, outputs of batches included."""

    def __init__(
        self,
        store: Store,
        contents: Contents,
        clock: Clock,
        *,
        max_file: int = MAX_FILE,
        max_stored: int = MAX_STORED,
    ) -> None:
        self.contents = contents
        self.max_file = max_file
        self._max_stored = max_stored
        self._store = store
        self._redis = store.redis
        self._keys = FileKeys(store.prefix)
        self._index = Index(store.redis, self._keys.files(), self._keys.file, decode_file)
        self._clock = clock

    async def begin(self, *, tenant: str = ANONYMOUS, quota: Quota = NO_QUOTA) -> Upload:
        """A file of this tenant, which may hold that much. Raises `StorageFull`, `QueueUnavailable`."""
        upload = Upload(self, new_file_id(), tenant, quota.file_bytes)
        await self._look(upload)
        return upload

    async def _look(self, upload: Upload) -> None:
        """At what there is room for now. Raises `StorageFull`, `QueueUnavailable`."""
        await self._measure(upload)
        with told_as_unavailable():
            num_files = await self._index.size()
        if num_files >= MAX_FILES:
            raise StorageFull(f"there are {num_files} files already; delete some.")

    async def _measure(self, upload: Upload) -> None:
        stored = own = 0
        with told_as_unavailable():
            async for record in self._index.records():
                stored += record.num_bytes
                own += record.num_bytes if record.tenant == upload.tenant else 0
        upload.room, upload.own = self._max_stored - stored, own

    async def add(self, record: FileRecord) -> None:
        """Make a file whose contents are whole known; once more changes nothing. Raises what Redis raises."""
        ttl_s = max(1, record.expires_at - int(self._clock.wall()))
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._keys.file(record.id), encode(record), ex=ttl_s)
        self._index.add(pipe, record.id, self._clock.wall() * 1000)
        await pipe.execute()

    async def finish(self, upload: Upload, *, filename: str, purpose: Purpose, lifetime_s: int) -> FileRecord:
        """Raises `FileNotFound` when the upload has taken too long, `StorageFull` and `TenantStorageFull` when others
        have had its room meanwhile, `QueueUnavailable`. Of two that together have no room one is kept."""
        async with self._turn(upload):
            return await self._finish(upload, filename=filename, purpose=purpose, lifetime_s=lifetime_s)

    @contextlib.asynccontextmanager
    async def _turn(self, upload: Upload) -> AsyncGenerator[None]:
        """Alone of its tenant's, where these have a bound: each then sees what those before it hold."""
        if upload.bound is None:
            yield
            return
        key, lead = TenantKeys(self._store.prefix, upload.tenant).finishing(), self._store.leases.lead
        with told_as_unavailable():
            while not await lead(key, upload.file_id, lease_ms=TURN_MS):
                await self._clock.sleep(TURN_POLL_S)
        try:
            yield
        finally:
            with contextlib.suppress(*TROUBLE):
                await lead(key, upload.file_id, lease_ms=0)

    async def _finish(self, upload: Upload, *, filename: str, purpose: Purpose, lifetime_s: int) -> FileRecord:
        await self._look(upload)
        upload.check(upload.num_bytes)
        created_at = int(self._clock.wall())
        record = FileRecord(
            id=upload.file_id,
            num_bytes=upload.num_bytes,
            created_at=created_at,
            expires_at=created_at + lifetime_s,
            filename=filename,
            purpose=purpose,
            place=self.contents.place,
            tenant=upload.tenant,
            num_lines=upload.num_lines,
        )
        with told_as_unavailable():
            await upload.flush()
            await self.contents.seal(record.id, record.num_bytes, lifetime_s)
            await self.add(record)
        if upload.bound is not None:
            await self._check_quota(upload, record, upload.bound)
        return record

    async def _check_quota(self, upload: Upload, record: FileRecord, bound: Bound) -> None:
        """Once it can be seen: if its turn was over before it had got so far, another upload may have had the same
        room, and outputs of batches take no turns. Raises `TenantStorageFull`, `QueueUnavailable`; not that there are
        as many files as may be, as the last of them is one of these."""
        await self._measure(upload)
        if upload.own > bound.most:
            with told_as_unavailable():
                await self._remove(record)
            raise storage_full(bound, upload.own - record.num_bytes, record.num_bytes)

    async def get(self, file_id: str, *, tenant: str | None = None) -> FileRecord:
        """With `tenant` only one of that tenant. Raises `FileNotFound`, `QueueUnavailable`."""
        with told_as_unavailable():
            data = await self._redis.get(self._keys.file(file_id)) if _ID.fullmatch(file_id) else None
        record = None if data is None else decode_file(data)
        if record is None or tenant not in (None, record.tenant):
            raise FileNotFound(f"There is no file {file_id[:64]!r}; it may have expired.", param="file_id")
        return record

    async def list(
        self,
        *,
        after: str | None = None,
        limit: int,
        newest_first: bool,
        purpose: str | None = None,
        tenant: str | None = None,
    ) -> Page[FileRecord]:
        """With `tenant` only those of that tenant. Raises `FileNotFound` for an unknown `after`, `QueueUnavailable`."""

        def is_wanted(record: FileRecord) -> bool:
            return purpose in (None, record.purpose) and tenant in (None, record.tenant)

        with told_as_unavailable():
            page = await self._index.page(
                after=after,
                limit=limit,
                newest_first=newest_first,
                wanted=is_wanted,
                is_known=lambda record: tenant in (None, record.tenant),
            )
        if page is None:
            raise FileNotFound(f"`after`: there is no file {str(after)[:64]!r}.", param="after")
        return page

    def read(self, record: FileRecord) -> AsyncGenerator[bytes]:
        """Its contents in pieces. Raises `FileElsewhere`; while it is read `FileNotFound` and what the storage
        raises."""
        if record.place != self.contents.place:
            raise FileElsewhere(
                f"the contents of {record.id} are in {record.place}, and this process has "
                f"--file-store {self.contents.place}; all balancers and workers need the same."
            )
        return self.contents.read(record.id, record.num_bytes)

    async def keep(self, record: FileRecord, until: int) -> None:
        """Have its contents last until then at least, however soon it is said to expire. Raises `FileNotFound`,
        `QueueUnavailable`."""
        key, ttl_s = self._keys.file(record.id), until - int(self._clock.wall())
        with told_as_unavailable():
            if await self._redis.ttl(key) >= ttl_s:
                return
            if record.place == self.contents.place:
                await self.contents.seal(record.id, record.num_bytes, ttl_s)
            await self._redis.expire(key, ttl_s)

    async def delete(self, file_id: str, *, tenant: str | None = None) -> None:
        """As `get`. Raises `FileNotFound`, `QueueUnavailable`, and `Conflict` for the input of a batch that has not
        ended."""
        record = await self.get(file_id, tenant=tenant)
        with told_as_unavailable():
            if file_id in [decode_open(one).input_file_id for one in await self._open_batches()]:
                raise Conflict("A batch reads this file; delete it when that has ended, or cancel the batch.")
            await self._remove(record)

    async def _open_batches(self) -> list[bytes]:
        return await self._redis.hvals(self._keys.open_batches())

    async def _remove(self, record: FileRecord) -> None:
        await self._redis.unlink(self._keys.file(record.id))
        await self._index.remove([record.id])
        if record.place == self.contents.place:
            await self.contents.delete(record.id, record.num_bytes)

    async def purge_once(self) -> None:
        """Forget what has expired. Raises what the storage raises."""
        expired = await self._index.expired()
        for file_id in expired:
            # Of Redis its chunks have expired with it.
            await self.contents.delete(file_id, 0)
        await self._index.remove(expired)
        await self.contents.delete_unfinished()
        # Of a process that died between sealing a file and adding its record.
        if old := await self.contents.old_ids():
            pipe = self._redis.pipeline(transaction=False)
            for file_id in old:
                pipe.exists(self._keys.file(file_id))
            for file_id, is_known in zip(old, await pipe.execute(), strict=True):
                if not is_known:
                    await self.contents.delete(file_id, 0)


class Upload:
    """A file that is being written. It exists for others once `Files.finish` has made it whole."""

    def __init__(self, files: Files, file_id: str, tenant: str, bound: Bound | None) -> None:
        """`room` is what there is for it, `own` what its tenant has already, of `bound`; bytes, by the last look."""
        self.file_id = file_id
        self.tenant = tenant
        self.bound = bound
        self.room = self.own = 0
        self.num_bytes = 0
        self._files = files
        self._held = bytearray()
        self._written = 0
        self._num_ends = 0
        self._is_inside_line = False

    @property
    def num_lines(self) -> int:
        """The last one need not end."""
        return self._num_ends + self._is_inside_line

    def check(self, num_bytes: int) -> None:
        """Raises `BodyTooLarge`, `TenantStorageFull` or `StorageFull` if a file of that size has no room."""
        if num_bytes > self._files.max_file:
            raise BodyTooLarge(
                f"The file is larger than {self._files.max_file} bytes; --max-file of the balancer sets this limit.",
                param="file",
            )
        if self.bound is not None and self.own + num_bytes > self.bound.most:
            raise storage_full(self.bound, self.own, num_bytes)
        if num_bytes > self.room:
            raise StorageFull(
                "all files together would have more bytes than --max-stored of the balancer allows; delete some."
            )

    async def write(self, data: bytes) -> None:
        """Append. Raises what `check` raises, `QueueUnavailable`."""
        if not data:
            return
        self.num_bytes += len(data)
        self.check(self.num_bytes)
        self._num_ends += data.count(b"\n")
        self._is_inside_line = not data.endswith(b"\n")
        self._held += data
        if len(self._held) >= CHUNK:
            with told_as_unavailable():
                await self.flush()

    async def flush(self) -> None:
        if self._held:
            data, self._held = bytes(self._held), bytearray()
            await self._files.contents.write(self.file_id, self._written, data, UPLOAD_S)
            self._written += len(data)

    async def abort(self) -> None:
        """Nobody will finish it."""
        with contextlib.suppress(*TROUBLE):
            await self._files.contents.delete(self.file_id, self._written)
