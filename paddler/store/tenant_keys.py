"""The keys of API keys, limits and usage: the part of the data model that belongs to tenants, not to pools.

What is counted for one tenant carries its name as hash tag, because its limits span pools.
"""

from __future__ import annotations

USAGE_KEEP_S = 400 * 86_400
"""How long a day of usage is kept: a year, and time to ask for it."""

LIMITS_KEEP_S = 2 * 86_400
"""A key that is not used for so long has its whole allowance again anyway."""

USED_KEEP_S = 30 * 86_400
"""How long ends wait to be accounted while there is no balancer at all."""


def api_keys_key(prefix: str) -> str:
    """hash · key id -> its record (`paddler.tenants.records`), and under the empty name that of the last change ·
    `change_key` writes, balancers and workers read · no TTL · at most `MAX_KEYS` keys."""
    return f"{prefix}:keys"


def tenants_key(prefix: str) -> str:
    """set · tenants that have used anything · whoever accounts writes, `paddler usage` reads · TTL as usage,
    renewed."""
    return f"{prefix}:tenants"


def used_key(pool_base: str) -> str:
    """stream · one entry a request of a key that has ended: tenant, key, model, tokens · every script that ends a
    request writes, balancers account and delete · TTL `USED_KEEP_S`, renewed · what ended within a second or so."""
    return f"{pool_base}:used"


class TenantKeys:
    """The keys of one tenant below `base` = `<prefix>:tenant:{<tenant>}`. `key_id` is an API key's."""

    def __init__(self, prefix: str, tenant: str) -> None:
        self.base = f"{prefix}:tenant:{{{tenant}}}"

    def limits(self, key_id: str) -> str:
        """hash · `r`, `t`: theoretical arrival times (ms) of requests and tokens; `held`: tokens of open reservations;
        `day` (since the epoch) and `used`: tokens accounted on it · reserve, adjust and account · TTL
        `LIMITS_KEEP_S`."""
        return f"{self.base}:limits:{key_id}"

    def open(self, key_id: str) -> str:
        """zset · request id of a reservation by when (ms) it is given up, unless it was accounted before · reserve,
        adjust and account · TTL as `limits`."""
        return f"{self.base}:open:{key_id}"

    def flight(self, key_id: str) -> str:
        """set · request ids that have not ended, a part of `open` · reserve, adjust and account · TTL as `limits`."""
        return f"{self.base}:flight:{key_id}"

    def reserved(self, key_id: str) -> str:
        """hash · request id of `open` -> `<tokens>:<1 if they are the real number>:<tokens/min it was reserved
        under>` · reserve, adjust and account · TTL as `limits`."""
        return f"{self.base}:reserved:{key_id}"

    def usage(self, day: int) -> str:
        """hash · `<key id>|<what>|<model>` -> a number, `what` being `requests`, `prompt`, `cached` or `output`, of
        what ended on a day (UTC, days since the epoch) · account writes, balancers and `paddler usage` read · TTL
        `USAGE_KEEP_S`."""
        return f"{self.base}:usage:{day}"

    def accounted(self) -> str:
        """hash · pool -> the last entry of its `used` stream that was accounted here: what makes that happen once ·
        account · TTL as `usage`, renewed."""
        return f"{self.base}:accounted"

    def finishing(self) -> str:
        """string · the upload that is made whole, for a tenant whose bytes are bounded · `lead` writes · TTL the lease,
        deleted before."""
        return f"{self.base}:finishing"
