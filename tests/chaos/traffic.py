"""What the chaos clients ask: a mixture of everything the scripted engine can do, each with its known answer."""

from __future__ import annotations

import random

import msgspec
from msgspec import Struct

from api.openai.chat import read_chat_call
from paddler.desired.sampling import filled
from paddler.testing.script import whole
from paddler.wire.agent import Generate, Sampling

SYSTEM_PROMPTS = 4
NUM_SESSIONS = 12
MAX_TURNS = 6
EMOJI = "Grüße 🙂🙃 aus dem Chaos ☃"


class Ask(Struct, frozen=True):
    """A request body, and what the balancer makes of it."""

    body: bytes
    payload: Generate
    is_poison: bool = False

    @property
    def expected(self) -> tuple[tuple[int, ...], str]:
        """Ids and text of the uninterrupted run."""
        told = whole(self.payload)
        return told.ids, told.text


class Traffic:
    """An endless sequence, determined by the random generator."""

    def __init__(self, chance: random.Random, name: str, *, mean_tokens: int) -> None:
        self._chance = chance
        self._name = name
        self._mean_tokens = mean_tokens
        self._num = 0
        self._sessions: list[list[dict[str, str]]] = []

    def next(self) -> Ask:
        kind = self._chance.random()
        if kind < 0.4:
            return self._turn()
        tokens = self._num_tokens()
        if kind < 0.45:
            return self._ask([_user(f"[[say={EMOJI * self._chance.randint(1, 3)}]] {self._unique()}")])
        if kind < 0.5:
            return self._ask([_user(f"[[tokens={tokens}]] {self._unique()}")], stop=["w12", "3 w"])
        if kind < 0.53:
            at = self._chance.randint(1, tokens)
            return self._ask([_user(f"[[tokens={tokens}]] [[preempt={at}]] {self._unique()}")])
        return self._ask([_user(f"[[tokens={tokens}]] {self._unique()}")])

    def poison(self) -> Ask:
        """Kills every agent that takes it."""
        return self._ask([_user(f"[[die]] {self._unique()}")], is_poison=True)

    def _turn(self) -> Ask:
        """The next turn of a conversation that agents may have in their caches."""
        if len(self._sessions) < NUM_SESSIONS:
            number = self._chance.randrange(SYSTEM_PROMPTS)
            self._sessions.append([{"role": "system", "content": f"You are number {number}. Be brief. " * 20}])
        session = self._chance.choice(self._sessions)
        session.append(_user(f"[[tokens={self._num_tokens()}]] {self._unique()}"))
        ask = self._ask(session)
        if len(session) > 2 * MAX_TURNS:
            self._sessions.remove(session)
        else:
            session.append({"role": "assistant", "content": ask.expected[1]})
        return ask

    def _ask(self, messages: list[dict[str, str]], *, stop: list[str] | None = None, is_poison: bool = False) -> Ask:
        fields = {
            "model": "default",
            "stream": True,
            "seed": self._chance.randrange(2**31),
            "temperature": self._chance.choice((0, 0.8)),
            "messages": messages,
        }
        body = msgspec.json.encode(fields | ({"stop": stop} if stop else {}))
        payload = filled(read_chat_call(body, 0).payload, Sampling())
        assert isinstance(payload, Generate)
        return Ask(body, payload, is_poison)

    def _num_tokens(self) -> int:

        return max(2, round(self._mean_tokens * self._chance.uniform(0.3, 1.7)))

    def _unique(self) -> str:
        self._num += 1
        return f"question {self._name} {self._num}"


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}
