"""What is typed behind `/`: words that must all be in a row, and `name=value`, which the balancer looks for."""

from __future__ import annotations

from msgspec import Struct

from paddler.dashboard.objects import Agent, Request

ASKED = ("state", "class", "tenant", "agent")
"""What the balancer filters requests by, so that more than the first of them are looked at."""


class AgentFilter(Struct, frozen=True):
    """Words in name, id, state, model or kinds of issues, whatever their case."""

    words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> AgentFilter:
        return cls(tuple(text.casefold().split()))

    def passes(self, agent: Agent) -> bool:
        if not self.words:
            return True
        kinds = [issue.kind for issue in agent.issue_details]
        seen = (agent.name, agent.id, agent.state, agent.model, agent.model_path, agent.host, agent.phase, *kinds)
        return _has_all(seen, self.words)


Asked = tuple[tuple[str, str], ...]
"""Names with their values."""


class RequestFilter(Struct, frozen=True):
    """`asked` goes to the balancer. An agent is asked for by its id, which `parse` finds for a name."""

    asked: Asked = ()
    words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, agents: list[Agent]) -> RequestFilter:
        asked: dict[str, str] = {}
        words: list[str] = []
        for word in text.split():
            name, sign, value = word.partition("=")
            if sign and value and name.casefold() in ASKED:
                asked[name.casefold()] = value
            else:
                words.append(word.casefold())
        if named := [one.id for one in agents if one.name == asked.get("agent")]:
            asked["agent"] = named[0]
        return cls(tuple(sorted(asked.items())), tuple(words))

    def passes(self, request: Request) -> bool:
        seen = (request.id, request.state, request.request_class, request.tenant, request.model, request.agent_name)
        return not self.words or _has_all((*seen, request.agent), self.words)


def _has_all(seen: tuple[str | None, ...], words: tuple[str, ...]) -> bool:
    text = "\n".join(one for one in seen if one).casefold()
    return all(word in text for word in words)
