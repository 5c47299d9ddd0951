"""Which tokens the next step computes. Pure: sequences and measured durations in, a plan out.

A step is bounded, because it bounds the others' inter-token latency, cancel latency and the agent's lease:
every generating sequence gets its one token, and what is left of the time goes to prefill, shared fairly.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

STEP_TARGET_S = 0.2
"""Aimed at while somebody generates; the bound is 250 ms, the rest is for a machine that just became slower."""
PREFILL_STEP_TARGET_S = 0.4
"""Aimed at while nobody does: only a cancel and newcomers wait for it. On 2 cores 128 tokens at once prefill 17 %
faster than the 50 that fit the shorter target."""
LONE_STEP_TARGET_S = 1.0
"""Aimed at for a prompt that is alone, unless the lease is too short for it: 512 tokens at once are a seventh faster
again."""
TILE = 64
"""llama.cpp's CPU flash attention computes a batch of at least so many tokens in tiles, which is faster and rounds
otherwise. Smaller batches give a token the same bits, however they are cut and whoever else is in them."""
MIN_PREFILL_TOKENS = 8
"""A smaller prefill chunk costs about as much as this one: the weights are read once a step either way."""


class Work(Struct):
    """One unfinished sequence. `num_total` tokens must be in the KV cache before its next token can be
    sampled, `num_cached` of them are, or will be once it is admitted. `num_shared` of its cells are an older
    sequence's too and count for that one. `is_admitted`: it may use the KV cache; `is_held`: it had better not yet,
    because an older one is computing what both begin with, or because that is being read from a tier; `is_restoring`:
    saved states of it are still being taken back, and nothing is computed before; of one that is not admitted yet,
    `restore_s` is what taking them back costs this step. Tokens from `num_prompt` on were sampled (None: none was): to
    be computed again in batches below a tile, as they were the first time. `gives_way`: nobody asked for it, so that
    all others come first.

    With images in its prompt: up to `run_end` the next tokens are text, or one image (`is_image`), which must be
    computed at once if `is_whole`; `is_waiting`: its encoding is not there yet."""

    key: int
    num_total: int
    num_cached: int = 0
    num_shared: int = 0
    is_admitted: bool = False
    is_held: bool = False
    is_restoring: bool = False
    restore_s: float = 0.0
    num_prompt: int | None = None
    run_end: int | None = None
    is_image: bool = False
    is_whole: bool = False
    is_waiting: bool = False
    gives_way: bool = False

    @property
    def num_pending(self) -> int:
        return self.num_total - self.num_cached

    @property
    def num_owned(self) -> int:
        """Cells that it needs beside those of older ones."""
        return self.num_total - self.num_shared

    @property
    def is_replaying(self) -> bool:
        return self.num_prompt is not None and self.num_cached >= self.num_prompt

    @property
    def num_alike(self) -> int:
        """Pending tokens that one chunk may hold: the rest of the prompt, or what was sampled after it; of a prompt
        with images the rest of the text or image."""
        end = self.num_total if self.num_prompt is None or self.is_replaying else self.num_prompt
        return (end if self.run_end is None else min(end, self.run_end)) - self.num_cached


class Chunk(Struct, frozen=True):
    """Compute the next `num_tokens` uncached tokens of the sequence `key`."""

    key: int
    num_tokens: int


class Plan(Struct, frozen=True):
    """Do in this order: give `preempted` back to the queue, admit `admitted`, compute `chunks`. What a prompt costs is
    not learned from one that `has_scraps`: so few tokens cost more each."""

    preempted: tuple[int, ...] = ()
    admitted: tuple[int, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    has_scraps: bool = False


class Scheduler:
    """Shares `num_cells` of KV cache and the time of a step among sequences.

    Admission is optimistic: a sequence is admitted when what it needs *now* fits beside what the admitted
    ones need now, in the order they came. When the cells do not suffice for their growth, the youngest is
    preempted: it goes back to the queue. The oldest is never preempted and one sequence alone always fits (the
    engine bounds each by `num_cells`), so every sequence ends. What is parked does not count: the engine evicts it
    before it computes a plan. One that gives way counts as the youngest, and is preempted for who is not admitted, too.
    """

    def __init__(
        self, *, num_cells: int, max_batch: int, prefill_token_s: float, lone_step_s: float = LONE_STEP_TARGET_S
    ) -> None:
        self.num_cells = num_cells
        self._lone_step_s = lone_step_s
        self._max_batch = max_batch
        self._prefill_token_s = prefill_token_s
        self._decode_s = 0.0

    @property
    def prefill_token_s(self) -> float:
        """Measured seconds a token of prefill costs."""
        return self._prefill_token_s

    def target_s(self, works: Sequence[Work]) -> float:
        """What the next step aims at, beside the tokens of those that generate, if these are computed in it."""
        works = [work for work in works if not work.is_waiting]
        return self._target_s(works, is_lone=len(works) == 1)

    def _target_s(self, works: Sequence[Work], *, is_lone: bool) -> float:
        if any(work.num_pending == 1 and not work.is_image for work in works):
            return STEP_TARGET_S - self._decode_s
        return self._lone_step_s if is_lone else PREFILL_STEP_TARGET_S

    def plan(self, works: Sequence[Work], used_s: float = 0.0) -> Plan:
        """Plan a step for all unfinished sequences, given oldest first; `used_s` of its time goes elsewhere. Changes
        nothing."""
        works = sorted(works, key=lambda work: work.gives_way)
        running = [work for work in works if work.is_admitted]
        num_used = sum(work.num_owned for work in running)
        preempted: list[Work] = []
        while num_used > self.num_cells and len(running) > 1:
            preempted.append(running.pop())
            num_used -= preempted[-1].num_owned
        # Nobody is admitted in a step that preempts: the room is for those who were short of it.
        admitted: list[Work] = []
        if not preempted:
            admitted, is_short = self._admit(running, num_used, works)
            if is_short and running and running[-1].gives_way:
                preempted, admitted = [running.pop()], []
        at_work = [*running, *admitted]
        last = [work for work in at_work if work.gives_way] if not all(work.gives_way for work in works) else []
        restore_s = sum(work.restore_s for work in admitted)
        # Who is held or being restored goes on when the step ends: a long one would cost more than waiting saves.
        is_awaited = any(work.is_held for work in works) or any(one.is_restoring for one in at_work)
        chunks = self._chunks(
            [work for work in at_work if work not in last], used_s + restore_s, may_be_lone=not is_awaited
        )
        scraps = self._scraps(last, chunks)
        return Plan(
            preempted=tuple(work.key for work in preempted),
            admitted=tuple(work.key for work in admitted),
            chunks=(*chunks, *scraps),
            has_scraps=bool(scraps),
        )

    def observe(self, plan: Plan, elapsed_s: float) -> None:
        """Learn from a step: how long this plan took."""
        num_decode = sum(1 for chunk in plan.chunks if chunk.num_tokens == 1)
        num_prefill = sum(chunk.num_tokens for chunk in plan.chunks) - num_decode
        if num_prefill == 0:
            self._decode_s += 0.3 * (elapsed_s - self._decode_s)
        elif num_prefill >= MIN_PREFILL_TOKENS and not plan.has_scraps:
            token_s = (elapsed_s - (self._decode_s if num_decode else 0.0)) / num_prefill
            # Slower is believed quickly, faster slowly: one mismeasured small chunk must not allow a long step.
            rate, token_s = (0.5, token_s) if token_s > self._prefill_token_s else (0.2, token_s)
            self._prefill_token_s += rate * (max(token_s, 0.25 * self._prefill_token_s) - self._prefill_token_s)

    def shrink(self, num_cells: int) -> None:
        """The KV cache refused a plan: it holds no more than `num_cells`."""
        self.num_cells = min(self.num_cells, num_cells)

    def _admit(self, running: list[Work], num_used: int, works: Sequence[Work]) -> tuple[list[Work], bool]:
        """And whether there was no room for one that does not give way."""
        admitted: list[Work] = []
        for work in works:
            if work.is_admitted:
                continue
            # Room to grow for everyone, or the newcomer would be preempted after a few tokens and prefill again.
            num_growth = min(self.num_cells // 16, 32 * (len(running) + len(admitted)))
            if num_used + work.num_owned + num_growth > self.num_cells and (running or admitted):
                return admitted, not work.gives_way
            # The room of a held one is kept: those behind it may pass it, but not take its turn.
            num_used += work.num_owned
            if not work.is_held:
                admitted.append(work)
        return admitted, False

    def _scraps(self, works: list[Work], chunks: list[Chunk]) -> list[Chunk]:
        """Of one that gives way, in a step of others: little beside who generates, nothing beside a prompt."""
        if any(chunk.num_tokens > 1 for chunk in chunks):
            return []
        most = min(MIN_PREFILL_TOKENS, self._max_batch - len(chunks))
        works = [work for work in works if not work.is_waiting and not work.is_restoring]
        return [Chunk(work.key, min(work.num_alike, most)) for work in works[:1] if most > 0]

    def _chunks(self, works: list[Work], used_s: float, *, may_be_lone: bool) -> list[Chunk]:
        works = [work for work in works if not work.is_waiting and not work.is_restoring]
        decoding = [work for work in works if work.num_pending == 1 and not work.is_image]
        prefilling = [work for work in works if work.num_pending > 1 or work.is_image]
        chunks = [Chunk(work.key, 1) for work in decoding]
        target_s = self._target_s(works, is_lone=may_be_lone and len(works) == 1)
        budget = max(int((target_s - used_s) / self._prefill_token_s), MIN_PREFILL_TOKENS)
        budget = min(_whole_tiles(budget + len(decoding)), self._max_batch) - len(decoding)
        below_tile = TILE - 1 - len(decoding)
        if below_tile >= MIN_PREFILL_TOKENS and any(work.is_replaying for work in prefilling):
            budget = min(budget, below_tile)
        # Equal shares; what a short prompt does not need goes to the longer ones.
        shares: dict[int, int] = {}
        whole = [work for work in prefilling if work.is_whole]
        for work in whole[:1]:  # one a step: nobody can say how long it takes
            shares[work.key] = work.num_alike
            budget = max(budget - work.num_alike, 0)
        by_need = sorted((work for work in prefilling if not work.is_whole), key=lambda work: work.num_alike)
        for num_before, work in enumerate(by_need):
            share = min(work.num_alike, -(-budget // (len(by_need) - num_before)))
            shares[work.key] = share
            budget -= share
        return chunks + [Chunk(work.key, shares[work.key]) for work in prefilling if shares.get(work.key, 0) > 0]


def _whole_tiles(num_tokens: int) -> int:
    """The nearest number of tokens in whole tiles, unless it is far from one."""
    return num_tokens if num_tokens < TILE * 3 // 4 else (num_tokens + TILE // 2) // TILE * TILE
