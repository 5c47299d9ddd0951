"""The parts that an output or error file is written in: each run has one of its own, so that a run that has lost its
batch and wakes too late writes where nothing counts, and never over what another run has counted.

What counts of each part is in the batch's record. At the end one part is the file; several are joined into one.
"""

from __future__ import annotations

from paddler.batches.batches import KEEP_S
from paddler.batches.contents import Contents
from paddler.batches.records import Part
from paddler.ids import derived_id


def part_ids(batch_id: str, holder: str) -> tuple[str, str]:
    """Of the output and the error file, of one run."""
    return f"file-{derived_id(batch_id, 'output', holder)}", f"file-{derived_id(batch_id, 'errors', holder)}"


def joined_ids(batch_id: str) -> tuple[str, str]:
    """Of the output and the error file that several runs have written: the same for each run."""
    return f"file-{derived_id(batch_id, 'output')}", f"file-{derived_id(batch_id, 'errors')}"


def grown(parts: tuple[Part, ...], file_id: str, num_bytes: int) -> tuple[Part, ...]:
    """With so many bytes of the last part, that of this run."""
    if not num_bytes:
        return parts
    others = parts[:-1] if parts and parts[-1].file_id == file_id else parts
    return (*others, Part(file_id, num_bytes))


async def join(contents: Contents, parts: tuple[Part, ...], file_id: str, ttl_s: int) -> tuple[Part, ...]:
    """Make them one sealed part, or none of none: `file_id` if they are several. Once more changes nothing.

    Raises `FileNotFound` when some of it is gone, and what the storage raises."""
    for part in parts:
        await contents.seal(part.file_id, part.num_bytes, ttl_s if len(parts) == 1 else KEEP_S)
    if len(parts) <= 1:
        return parts
    size = 0
    for part in parts:
        async for piece in contents.read(part.file_id, part.num_bytes):
            await contents.write(file_id, size, piece, KEEP_S)
            size += len(piece)
    await contents.sync(file_id)
    await contents.seal(file_id, size, ttl_s)
    return (Part(file_id, size),)
