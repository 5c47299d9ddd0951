"""Comparing what Redis remembers of a request with what it must have said."""

from __future__ import annotations

from collections import deque
from typing import Any

from msgspec import Struct

from paddler.store.client import TROUBLE, Store
from paddler.wire.balancer import Failed, Finished, Opened, Tokens, decode_frames
from tests.chaos.tally import Tally
from tests.chaos.traffic import Ask

TERMINAL = (b"done", b"failed", b"cancelled")
BATCH = 100


class Ended(Struct, frozen=True):
    """A request whose client has its end: `is_ok` the whole text, else a failure."""

    request_id: str
    ask: Ask
    is_ok: bool


class Checker:
    """`put` what ended, `run_once` now and then, and in the end until nothing is left.

    A journal has the tokens of the uninterrupted run, each once and in order, and one terminal frame, its last."""

    def __init__(self, store: Store, tally: Tally, *, may_forget: bool) -> None:
        self._pool = store.pool("default")
        self._tally = tally
        self._may_forget = may_forget
        self._waiting: deque[Ended] = deque()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def put(self, ended: Ended) -> None:
        self._waiting.append(ended)

    async def run_once(self) -> None:
        """Look at up to `BATCH` requests; what cannot be told yet stays."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        pipe = self._pool.redis.pipeline(transaction=False)
        for ended in batch:
            pipe.hget(self._pool.keys.request(ended.request_id), "state")
            pipe.get(self._pool.keys.journal(ended.request_id))
        try:
            answers: list[Any] = await pipe.execute()
        except TROUBLE:
            self._waiting.extend(batch)
            return
        for ended, state, journal in zip(batch, answers[::2], answers[1::2], strict=True):
            if state is None and self._may_forget:
                self._tally.count("journals forgotten")
            elif state not in TERMINAL:
                self._waiting.append(ended)
            else:
                self._check(ended, state, journal or b"")

    def give_up(self) -> None:
        for ended in self._waiting:
            self._tally.violate(f"{ended.request_id}: its client has an end, the queue has none")
        self._waiting.clear()

    def _check(self, ended: Ended, state: bytes, journal: bytes) -> None:
        if problem := journal_problem(journal, ended.ask, state, may_forget=self._may_forget):
            self._tally.violate(f"{ended.request_id}: {problem}")
        elif ended.is_ok and state != b"done" and not self._may_forget:
            self._tally.violate(f"{ended.request_id}: its client has the whole text, its state is {state!r}")
        else:
            self._tally.count("journals checked")


def journal_problem(journal: bytes, ask: Ask, state: bytes, *, may_forget: bool) -> str:
    """What is wrong with a terminal request's journal; '' for nothing.

    A Redis that forgot may have an attempt opened twice, the second time on top of what it was given back."""
    ids: list[int] = []
    text = ""
    attempts: list[int] = []
    try:
        frames = list(decode_frames(journal))
    except ValueError as error:
        return f"its journal cannot be read: {error}"
    ends = [at for at, frame in enumerate(frames) if isinstance(frame, Finished | Failed)]
    if ends != [len(frames) - 1]:
        return f"terminal frames at {ends} of {len(frames)}"
    for frame in frames:
        if isinstance(frame, Tokens):
            ids += frame.ids
            text += frame.text
        elif isinstance(frame, Opened):
            attempts.append(frame.attempt)
    if attempts != sorted(set(attempts)) and not may_forget:
        return f"opened for attempts {attempts}"
    expected_ids, expected_text = ask.expected
    if tuple(ids) != expected_ids[: len(ids)] or not expected_text.startswith(text):
        return f"its journal has tokens that the uninterrupted run has not: {_first_difference(ids, expected_ids)}"
    if state == b"done" and (len(ids), text) != (len(expected_ids), expected_text):
        return f"done with {len(ids)} tokens of {len(expected_ids)}"
    return ""


def _first_difference(ids: list[int], expected: tuple[int, ...]) -> str:
    at = next((at for at, (one, other) in enumerate(zip(ids, expected, strict=False)) if one != other), len(expected))
    return f"from token {at} on {ids[at : at + 4]} instead of {list(expected[at : at + 4])}, of {len(ids)}"
