"""What a balancer needs of files and batches."""

from __future__ import annotations

from msgspec import Struct

from paddler.batches.batches import Batches
from paddler.batches.contents import Contents
from paddler.batches.files import MAX_FILE, MAX_STORED, Files
from paddler.batches.quota import NO_QUOTA, Quota
from paddler.clock import Clock
from paddler.store.client import Store


class Shelf(Struct, frozen=True):
    """`quota` is what every tenant may hold whose key says nothing of it."""

    files: Files
    batches: Batches
    quota: Quota = NO_QUOTA


def new_shelf(
    store: Store,
    contents: Contents,
    clock: Clock,
    *,
    max_file: int = MAX_FILE,
    max_stored: int = MAX_STORED,
    quota: Quota = NO_QUOTA,
) -> Shelf:
    files = Files(store, contents, clock, max_file=max_file, max_stored=max_stored)
    return Shelf(files, Batches(store, clock), quota)
