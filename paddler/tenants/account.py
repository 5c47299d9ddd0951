"""Who pays for a request."""

from __future__ import annotations

from msgspec import Struct

from paddler.store.scripts_tenants import Reserved
from paddler.tenants.records import ApiKey


class Account(Struct, eq=False, kw_only=True):
    """The API key of one call, and where its limits stood when they were asked last, for what the answer tells."""

    key: ApiKey
    standing: Reserved | None = None
    lowered_class: str = ""
    """The class that a request of it was given in place of a higher one that it asked for."""
