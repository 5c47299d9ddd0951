"""The parts of the benchmark of the tiers. Each takes the same prompt twice, computed and restored, round by round."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import median

from tests.bench.kv_fleet import BLOCK, Asked, KvFleet
from tests.bench.kv_report import Gap, Prefix, Zero
from tests.bench.queue_fleet import Child, until

WORDS = tuple(
    word
    for line in (
        "time river house water light stone bread green small long good new old high first last great little own other",
        "place year people way day man thing woman life child world school state family student group country problem",
    )
    for word in line.split()
)
"""Each is one token of SmolLM2."""
ANSWER = 3
AT = 12
"""Pieces of text before it does, at least."""
SYSTEM = 1000
SMALL = 600
RAM = ("--kv-ram", "1GiB")
PAIR = ("one", "other")

Messages = list[dict[str, str]]


def conversation(seed: str, num_words: int) -> Messages:
    """A system prompt that no other seed begins with, and a question."""
    drawn = random.Random(seed)
    text = f"Story {seed}: " + " ".join(drawn.choice(WORDS) for _ in range(num_words))
    return [{"role": "system", "content": text}, {"role": "user", "content": "Which word comes first?"}]


def whole_blocks(asked: Asked) -> int:
    return asked.answer.prompt_tokens // BLOCK


class Parts:
    def __init__(self, fleet: KvFleet, rounds: int, tell: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._rounds = rounds
        self._tell = tell
        self._tokens_per_word = 0.0

    def other_agent(self, tier: str, sizes: tuple[int, ...]) -> list[Prefix]:
        """Two agents: one computes, the other, which never saw the prompt, is asked next; they change places."""
        fleet = self._fleet
        flags = ("--kv-addr", "127.0.0.1:0") if tier == "peer" else ("--kv-url", fleet.kv_url)
        agents = [fleet.agent(name, *RAM, *flags) for name in PAIR]
        for name in PAIR:
            fleet.ready(name)
        # An agent that has restored nothing yet does not know how fast that is, and leaves what another holds to that
        # one for as long as computing takes, though it is drained here.
        for n in range(len(PAIR)):
            self._elsewhere(tier, SMALL, f"first {n}", n)
        found: list[Prefix] = []
        for size in sizes:
            pairs = [self._elsewhere(tier, size, str(n), n) for n in range(self._rounds)]
            found.append(self._prefix(tier, size, [cold for cold, _ in pairs], [warm for _, warm in pairs]))
        fleet.stop(*agents)
        return found

    def _elsewhere(self, tier: str, size: int, seed: str, n: int) -> tuple[Asked, Asked]:
        fleet = self._fleet
        fleet.forget_states()
        holder, newcomer = PAIR if n % 2 == 0 else PAIR[::-1]
        kept = self._num_kept(holder, "ram")
        prompt = self._conversation(f"{tier} {size} {seed}", size)
        fleet.only(holder)
        cold = fleet.ask(prompt, ANSWER)
        num_blocks = whole_blocks(cold)
        fleet.until_kept(holder, "shared" if tier == "shared" else "ram", num_blocks + (tier == "peer") * kept)
        fleet.only(newcomer)
        return cold, fleet.ask(prompt, ANSWER)

    def after_restart(self, sizes: tuple[int, ...]) -> list[Prefix]:
        """One agent with a directory: it computes, ends, and is asked again once it is there again."""
        fleet = self._fleet
        found: list[Prefix] = []
        for size in sizes:
            cold: list[Asked] = []
            warm: list[Asked] = []
            for n in range(self._rounds):
                flags = ("--kv-disk", str(fleet.folder / f"states {size} {n}"))
                agent = fleet.agent("one", *flags)
                fleet.ready("one")
                prompt = self._conversation(f"disk {size} {n}", size)
                cold.append(fleet.ask(prompt, ANSWER))
                fleet.stop(agent)
                agent = fleet.agent("one", *flags)
                fleet.ready("one")
                warm.append(fleet.ask(prompt, ANSWER))
                fleet.stop(agent)
            found.append(self._prefix("disk", size, cold, warm))
        return found

    def after_eviction(self, sizes: tuple[int, ...]) -> list[Prefix]:
        """One agent whose context has room for one prompt: each pushes the one before out of it."""
        fleet = self._fleet
        found: list[Prefix] = []
        for size in sizes:
            agent = fleet.agent("one", *RAM, context_size=size + size // 4 + 2 * BLOCK)
            fleet.ready("one")
            prompts = [self._conversation(f"ram {size} {n}", size) for n in range(self._rounds + 1)]
            cold = [fleet.ask(prompts[0], ANSWER)]
            warm: list[Asked] = []
            for before, prompt in pairwise(prompts):
                cold.append(fleet.ask(prompt, ANSWER))
                warm.append(fleet.ask(before, ANSWER))
            found.append(self._prefix("ram", size, cold, warm))
            fleet.stop(agent)
        return found

    def from_zero(self, size: int = SYSTEM) -> Zero:
        """A request waits, an agent starts: with a pinned prefix that the shared store has, and without."""
        fleet = self._fleet
        flags = (*RAM, "--kv-url", fleet.kv_url)
        fleet.forget_states()
        first = fleet.agent("one", *flags)
        fleet.ready("one")
        pinned = self._conversation("pinned", size)
        fleet.call("POST", "/api/v1/prefixes", json={"name": "system", "messages": pinned[:1]})
        until(self._is_computed, "it is computed")
        fleet.until_kept("one", "shared", size // BLOCK)
        fleet.stop(first)
        fleet.call("DELETE", "/api/v1/prefixes/system")
        loads: list[float] = []
        firsts: dict[bool, list[float]] = {False: [], True: []}
        for n in range(self._rounds):
            begun = time.perf_counter()
            bare = fleet.agent("one")
            bare.wait_for("registered", state="ready")
            loads.append(time.perf_counter() - begun)
            fleet.stop(bare)
            firsts[False].append(self._first_from_zero(self._conversation(f"zero {n}", size)))
            # Pinned while there is no agent: nobody computes it anew.
            fleet.call("POST", "/api/v1/prefixes", json={"name": "system", "messages": pinned[:1]})
            firsts[True].append(self._first_from_zero(pinned, *flags))
            fleet.call("DELETE", "/api/v1/prefixes/system")
        self._tell(f"from zero: loads {loads}, first tokens {firsts}")
        return Zero(size=size, load_s=loads, pinned_s=firsts[True], cold_s=firsts[False])

    def _is_computed(self) -> bool:
        agents = self._fleet.call("GET", "/api/v1/prefixes/system")["agents"]
        return any(one["state"] == "resident" for one in agents)

    def _first_from_zero(self, prompt: Messages, *flags: str) -> float:
        """Seconds from the start of an agent to the first token of a request that waits for it."""
        fleet = self._fleet
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(fleet.ask, prompt, ANSWER)
            until(lambda: fleet.call("GET", "/api/v1/buffered_requests")["buffered_requests_current"] == 1, "it waits")
            begun = time.perf_counter()
            agent = fleet.agent("one", *flags)
            asked = waiting.result()
        fleet.stop(agent)
        return asked.at_s + asked.first_s - begun

    def leaving(self, size: int, num_tokens: int) -> list[Gap]:
        """An agent gets SIGTERM in the middle of a conversation, another one goes on: the longest gap between two
        pieces of text from then on."""
        fleet = self._fleet
        found: list[Gap] = []
        tiers = (*RAM, "--kv-url", fleet.kv_url, "--kv-addr", "127.0.0.1:0")
        gaps: dict[bool, list[float]] = {True: [], False: []}
        usual: list[float] = []
        for n in range(self._rounds):
            for has_state in (True, False):
                flags = tiers if has_state else ()
                agents = [fleet.agent(name, *flags) for name in PAIR]
                for name in PAIR:
                    fleet.ready(name)
                prompt = self._conversation(f"leaving {has_state} {n}", size)
                asked, at = self._interrupted(agents[0], prompt, num_tokens)
                if at >= len(asked.answer.text_s):
                    raise SystemExit("it was over before the agent was told to go: --output-tokens is for more of it")
                gaps[has_state].append(max(asked.answer.gaps_s[at - 1 :]))
                usual.append(median(asked.answer.gaps_s))
                fleet.stop(*agents)
        for has_state, seconds in gaps.items():
            self._tell(f"leaving, {'with' if has_state else 'without'} state: {seconds}")
            found.append(Gap(size=size, has_state=has_state, seconds=seconds, usual_s=usual))
        return found

    def _interrupted(self, agent: Child, prompt: Messages, num_tokens: int) -> tuple[Asked, int]:
        """The answer, and how many pieces of its text had come when the agent was told to go."""
        fleet, told = self._fleet, [0]
        fleet.only(PAIR[0])

        def heard(num_pieces: int) -> None:
            told[0] = num_pieces

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(fleet.ask, prompt, num_tokens, heard)
            until(lambda: told[0] >= AT or asking.done(), "it talks")
            (other,) = (one for one in fleet.agents() if one["name"] == PAIR[1])
            fleet.call("POST", f"/api/v1/agent/{other['id']}/undrain")
            num_pieces = told[0]
            agent.process.send_signal(signal.SIGTERM)
            return asking.result(), num_pieces

    def _conversation(self, seed: str, num_tokens: int) -> Messages:
        """Of about so many tokens; the first time there must be an agent."""
        if not self._tokens_per_word:
            self._tokens_per_word = self._fleet.num_tokens(" ".join(WORDS)) / len(WORDS)
        return conversation(seed, round(num_tokens / self._tokens_per_word))

    def _num_kept(self, name: str, tier: str) -> int:
        told = next(one for one in self._fleet.agents() if one["name"] == name)
        return next((one["blocks"] for one in told["tiers"] if one["tier"] == tier), 0)

    def _prefix(self, tier: str, size: int, cold: list[Asked], warm: list[Asked]) -> Prefix:
        one = Prefix(
            tier=tier,
            size=size,
            prompt_tokens=cold[0].answer.prompt_tokens,
            cached_tokens=[asked.answer.cached_tokens for asked in warm],
            cold_s=[asked.first_s for asked in cold],
            restored_s=[asked.first_s for asked in warm],
        )
        self._tell(f"{tier}, {size}: cold {one.cold_s}, restored {one.restored_s}, cached {one.cached_tokens}")
        return one
