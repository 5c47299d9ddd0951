"""The tier of other agents' memory and disks: what one of them has, the others need not compute.

By `http.client`, as a thread reads here up to a deadline: httpx takes timeouts for a whole answer, each of its reads
again, and a peer that gives a little now and then would hold the thread for minutes.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, cast
from urllib.parse import urlsplit

from paddler.clock import Clock
from paddler.logs import get_logger
from workers.agent.tiers.block_stream import LENGTH_SIZE, PATH, encode_names
from workers.agent.tiers.passes import Passes
from workers.agent.tiers.restoring import RestoreSpeed
from workers.agent.tiers.shared import MAX_BLOCK_BYTES

MAX_TRIED = 2
"""Peers, for one request."""
FIRST_SHARE = 0.5
"""Of the deadline, until the first of two has begun to answer."""
CONNECT_S = 0.5
AWAY_S = 5.0
"""A peer that did not give what it was asked for is not asked for so long. Others are: one that was killed must not
have the whole tier left out, so none of this is a `TierUnavailable`."""
READ_BYTES = 256 * 1024
MAX_REFUSAL_BYTES = 200
MAX_BYTES = MAX_BLOCK_BYTES
"""Of one answer: who wants more asks again."""

log = get_logger(__name__)


class PeerTier:
    """`now_s` is the time by which passes are made; `own_url` this agent's, which it never asks."""

    name = "peer"

    def __init__(
        self, passes: Passes, clock: Clock, now_s: Callable[[], float], *, own_url: str, speed: RestoreSpeed
    ) -> None:
        self._passes = passes
        self._clock = clock
        self._now_s = now_s
        self._own_url = own_url
        self._speed = speed
        self._away: dict[str, float] = {}

    def read(self, names: Sequence[bytes], *, peers: Sequence[str], deadline_s: float) -> list[bytes]:
        end = self._clock.monotonic() + deadline_s
        asked = self._reachable(peers)
        for number, url in enumerate(asked, 1):
            now = self._clock.monotonic()
            if now >= end:
                break
            first_end = end if number == len(asked) else now + (end - now) * FIRST_SHARE
            found: list[bytes] = []
            try:
                for packed in self._ask(url, names, first_end, end):
                    found.append(packed)  # noqa: PERF402  # what came before an error is kept
            except (OSError, http.client.HTTPException, ValueError) as error:
                log.warning("a peer did not give what it was asked for", peer=url, error=repr(error), got=len(found))
                self._away[url] = self._clock.monotonic() + AWAY_S
            if found:
                self._speed.note(len(found), self._clock.monotonic() - now)
                return found
        return []

    def write(self, name: bytes, packed: bytes | bytearray, *, num_tokens: int, is_pinned: bool) -> None:
        """Nothing: others come for it."""
        del name, packed, num_tokens, is_pinned

    def close(self) -> None:
        pass

    def _reachable(self, peers: Sequence[str]) -> list[str]:
        now = self._clock.monotonic()
        away = self._away = {url: until for url, until in self._away.items() if until > now}
        return [url for url in dict.fromkeys(peers) if url != self._own_url and url not in away][:MAX_TRIED]

    def _ask(self, url: str, names: Sequence[bytes], first_end: float, end: float) -> Iterator[bytes]:
        """Each block as soon as it is whole. Raises `OSError`, `HTTPException` and `ValueError`."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise ValueError(f"{url!r} is no address of an agent")
        body = encode_names(names)
        until = first_end
        timeout_s = min(CONNECT_S, self._left(until))
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        with closing(connection):
            connection.connect()
            sock = connection.sock

            def wait_for(raw: io.RawIOBase, buffer: Any) -> int | None:
                sock.settimeout(self._left(until))
                return raw.readinto(buffer)

            def answer_of(*arguments: Any, **more: Any) -> http.client.HTTPResponse:
                answer = http.client.HTTPResponse(*arguments, **more)
                answer.fp = io.BufferedReader(_Each(answer.fp.detach(), wait_for))
                return answer

            connection.response_class = cast(Any, answer_of)
            sock.settimeout(self._left(until))
            headers = {"authorization": self._passes.issue(url, body, self._now_s()), "connection": "close"}
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                said = answer.read(MAX_REFUSAL_BYTES).decode("utf-8", "replace").strip()
                raise ValueError(f"{answer.status}: {said}")
            until = end

            def read(size: int) -> bytes:
                """Exactly so many bytes."""
                found = bytearray()
                while len(found) < size:
                    some = answer.read1(min(size - len(found), READ_BYTES))
                    if not some:
                        raise ValueError("the answer was cut off")
                    found += some
                return bytes(found)

            num_bytes = 0
            for _ in names:
                size = int.from_bytes(read(LENGTH_SIZE), "big")
                if size > MAX_BLOCK_BYTES:
                    raise ValueError(f"a block of {size} bytes")
                num_bytes += size
                if size == 0 or num_bytes > MAX_BYTES:
                    break
                yield read(size)

    def _left(self, end: float) -> float:
        left = end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("it took longer than it was given")
        return left


class _Each(io.RawIOBase):
    """Reads from `raw` by `wait_for`, each time anew: whoever gives a little now and then gets no more time for it, not
    even with the lines of a header."""

    def __init__(self, raw: io.RawIOBase, wait_for: Callable[[io.RawIOBase, Any], int | None]) -> None:
        self._raw, self._wait_for = raw, wait_for

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        return self._wait_for(self._raw, buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
