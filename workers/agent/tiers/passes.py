"""Passes: how an agent shows another that it belongs to the same fleet, without sending the secret.

    authorization: Paddler-KV <Unix seconds>.<nonce>.<HMAC-SHA256 over time, nonce, receiver and body>

A pass is good for one body, once, at one agent, and for `GOOD_FOR_S` around its time: what is overheard can be used by
nobody. The receiver is the address under which agents know it (`kv_url`), as text.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from enum import StrEnum

from workers.agent.tiers.secret import derived

SCHEME = "Paddler-KV"
GOOD_FOR_S = 60
"""Clocks of a fleet may differ by so much."""
MAX_KNOWN = 100_000
"""Passes that have been used, of the last two minutes: 800 a second."""

_PASS = re.compile(rf"{SCHEME} (\d{{1,12}})\.([0-9a-f]{{32}})\.([0-9a-f]{{64}})")


class Refusal(StrEnum):
    FORGED = "no pass of this fleet for this agent: do others know it by its --kv-advertise?"
    STALE = "a pass of another time: do the clocks of these machines agree?"
    USED = "a pass that was used before"


class Passes:
    """`issue` on one side, `check` on the other; both know the secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = derived(secret, "paddler kv peers")
        self._used: OrderedDict[str, int] = OrderedDict()

    def issue(self, receiver: str, body: bytes, now_s: float) -> str:
        time, nonce = str(int(now_s)), secrets.token_hex(16)
        return f"{SCHEME} {time}.{nonce}.{self._signature(time, nonce, receiver, body)}"

    def check(self, header: str, receiver: str, body: bytes, now_s: float) -> Refusal | None:
        """None: it is good, and now used. Called by one thread."""
        found = _PASS.fullmatch(header)
        if found is None:
            return Refusal.FORGED
        time, nonce, signature = found.groups()
        if not hmac.compare_digest(signature, self._signature(time, nonce, receiver, body)):
            return Refusal.FORGED
        if abs(now_s - int(time)) > GOOD_FOR_S:
            return Refusal.STALE
        while self._used and (len(self._used) > MAX_KNOWN or next(iter(self._used.values())) < now_s - 2 * GOOD_FOR_S):
            self._used.popitem(last=False)
        if nonce in self._used:
            return Refusal.USED
        self._used[nonce] = int(now_s)
        return None

    def _signature(self, time: str, nonce: str, receiver: str, body: bytes) -> str:
        said = f"{time}.{nonce}.{len(receiver)}.{receiver}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, said + body, hashlib.sha256).hexdigest()
