"""What the dashboard knows of a fleet: changed by what is heard (`feed.py`), read by what is drawn.

Pure: `now` is an argument everywhere, in seconds of a clock that does not go back.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from paddler.dashboard.objects import Agent, Pool, Request, Timeline
from paddler.dashboard.samples import Samples


class Trouble(Struct, frozen=True):
    """Why a source tells nothing, and since when."""

    words: str
    since: float
    is_refusal: bool


class Listing(Struct, frozen=True):
    """Requests that have not ended, the first that were asked for; `trouble` is why there are none."""

    requests: list[Request]
    has_more: bool = False
    trouble: str = ""


class Story(Struct, frozen=True):
    """What has happened to the request that is looked at; `trouble` is why no more is told."""

    timeline: Timeline | None
    trouble: str = ""


class Picture:
    """One pool of a fleet. `version` grows with every change, so that who draws sees whether there is anything new."""

    def __init__(self, pool_name: str) -> None:
        self.pool_name = pool_name
        self.version = 0
        self.agents: list[Agent] = []
        self.pool: Pool | None = None
        self.pool_names: list[str] = [pool_name]
        self.has_worker = True
        self.waiting: int | None = None
        self.requests: Listing | None = None
        self.story: Story | None = None
        self.buffer = Samples()
        self.tokens = Samples()
        self._troubles: dict[str, Trouble] = {}
        self._heard: dict[str, float] = {}
        self._updated: dict[str, float] = {}
        self._rows: dict[str, Agent] = {}

    # What is heard.

    def agents_told(self, agents: list[Agent], now: float) -> None:
        """By a stream, which tells of changes, or by an answer, which also tells how old each is."""
        rows: dict[str, Agent] = {}
        for agent in agents:
            rows[agent.id] = agent
            if agent.since_renewal_ms is not None:
                self._updated[agent.id] = now - agent.since_renewal_ms / 1000
            elif self._rows and agent != self._rows.get(agent.id):
                self._updated[agent.id] = now
        self._rows = {name: _without_age(agent) for name, agent in rows.items()}
        self._updated = {name: at for name, at in self._updated.items() if name in rows}
        self.agents = agents
        self._changed()

    def waiting_told(self, number: int) -> None:
        self.waiting = number
        self._changed()

    def pool_told(self, pool: Pool) -> None:
        self.pool = pool
        self._changed()

    def pools_told(self, names: list[str], *, has_worker: bool) -> None:
        self.pool_names = names
        self.has_worker = has_worker
        self._changed()

    def requests_told(self, listing: Listing | None) -> None:
        self.requests = listing
        self._changed()

    def story_told(self, story: Story | None) -> None:
        self.story = story
        self._changed()

    def heard(self, source: str, now: float) -> None:
        """A source tells again, or still."""
        self._heard[source] = now
        if self._troubles.pop(source, None):
            self._changed()

    def silent(self, source: str, words: str, now: float, *, is_refusal: bool = False) -> None:
        """A source tells nothing, and why."""
        before = self._troubles.get(source)
        self._troubles[source] = Trouble(words, before.since if before else now, is_refusal)
        self._changed()

    def sample(self, now: float) -> None:
        """Once a second, for the sparklines."""
        is_known = self.is_known and not self.trouble
        self.buffer.take(self.waiting if is_known else None, now)
        self.tokens.take(self.tokens_per_second if is_known else None, now)
        self._changed()

    # What is drawn.

    @property
    def is_known(self) -> bool:
        """The agents have been told at least once."""
        return "agents" in self._heard

    @property
    def trouble(self) -> Trouble | None:
        """The oldest there is."""
        return min(self._troubles.values(), key=_since, default=None)

    @property
    def tokens_per_second(self) -> float:
        """What the agents that have work compute, by their own measuring."""
        return sum(agent.tokens_per_second or 0.0 for agent in self.agents if agent.slots_processing)

    @property
    def slots(self) -> tuple[int, int]:
        """Those that work, and all of them: of the agents, since the pool is asked for only once a second and would for
        so long say something else than the table."""
        return sum(one.slots_processing for one in self.agents), sum(one.slots_total for one in self.agents)

    def updated_s(self, agent: Agent, now: float) -> float | None:
        """Seconds since an agent was last heard of; None when nobody has said."""
        at = self._updated.get(agent.id)
        return None if at is None else max(0.0, now - at)

    def agent(self, agent_id: str) -> Agent | None:
        return next((one for one in self.agents if one.id == agent_id), None)

    def _changed(self) -> None:
        self.version += 1


def _without_age(agent: Agent) -> Agent:
    """As a stream tells it, to be compared with what the stream tells next."""
    return agent if agent.since_renewal_ms is None else replace(agent, since_renewal_ms=None)


def _since(trouble: Trouble) -> float:
    return trouble.since
