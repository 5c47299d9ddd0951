"""The pages below the heading: the two tables, and one agent or one request closely."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from paddler.dashboard import words
from paddler.dashboard.columns import AGENTS, REQUESTS, Shown
from paddler.dashboard.details import agent_details, request_details
from paddler.dashboard.filtering import AgentFilter, RequestFilter
from paddler.dashboard.objects import Agent, Request
from paddler.dashboard.picture import Picture
from paddler.dashboard.rows import Rows
from paddler.dashboard.text import printable


class Order(Message):
    """Something is to be done, once it is confirmed."""

    def __init__(self, verb: str, about: Agent | Request) -> None:
        super().__init__()
        self.verb = verb
        self.about = about


class Table(Vertical):
    """A table with its titles, and words where it has nothing to show."""

    def __init__(self, rows: Rows[Shown] | Rows[Request], *, id: str) -> None:
        super().__init__(id=id)
        self.rows = rows
        self.message = Static(classes="message", markup=False)
        self._said: str | None = None

    def compose(self) -> ComposeResult:
        yield self.rows.header
        yield self.message
        yield self.rows

    def say(self, text: str) -> None:
        """In place of rows; empty for nothing. Other words are a new layout of the whole screen, the same ones none."""
        if text == self._said:
            return
        self._said = text
        self.message.display = bool(text)
        self.rows.header.display = not text
        self.message.update(text)


class AgentsTable(Table):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "drain", "Drain"),
        Binding("u", "undrain", "Undrain"),
    ]

    def __init__(self, where: str) -> None:
        self.agents: Rows[Shown] = Rows(AGENTS, _agent_key, id="agent-rows")
        super().__init__(self.agents, id="agents")
        self._where = where

    def draw(self, picture: Picture, now: float, filter_text: str) -> None:
        passes = AgentFilter.parse(filter_text).passes
        shown = [Shown(agent, picture.updated_s(agent, now)) for agent in picture.agents if passes(agent)]
        self.agents.show(shown, is_stale=picture.trouble is not None)
        trouble = picture.trouble
        if not picture.is_known:
            self.say(words.no_answer(trouble) if trouble else words.waiting_for_news(self._where))
        elif not picture.agents:
            self.say(words.no_agent(picture.pool_name, picture.waiting))
        else:
            self.say("" if shown else words.no_match(filter_text))

    def action_drain(self) -> None:
        self._order("drain")

    def action_undrain(self) -> None:
        self._order("undrain")

    def _order(self, verb: str) -> None:
        if (shown := self.agents.selected) is not None:
            self.post_message(Order(verb, shown.agent))


class RequestsTable(Table):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("c", "cancel", "Cancel")]

    def __init__(self) -> None:
        self.requests: Rows[Request] = Rows(REQUESTS, _request_key, id="request-rows")
        super().__init__(self.requests, id="requests")

    def draw(self, picture: Picture, now: float, filter_text: str) -> None:  # noqa: ARG002  # as the other pages
        listing = picture.requests
        passes = RequestFilter.parse(filter_text, picture.agents).passes
        shown = [request for request in listing.requests if passes(request)] if listing else []
        self.requests.show(shown, is_stale=picture.trouble is not None)
        if listing is None:
            self.say(words.loading_requests())
        elif listing.trouble:
            self.say(f"{listing.trouble}.")
        else:
            self.say("" if shown else words.no_requests(is_filtered=bool(filter_text)))

    def action_cancel(self) -> None:
        if (request := self.requests.selected) is not None:
            self.post_message(Order("cancel", request))


class View(VerticalScroll, can_focus=True):
    """Text to scroll through."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False),
        Binding("k", "scroll_up", "Up", show=False),
        Binding("space", "page_down", "Page down", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.title = Static(classes="title", markup=False)
        self.body = Static(classes="body", markup=False)

    def compose(self) -> ComposeResult:
        yield self.title
        yield self.body


class AgentView(View):
    """One agent; when it goes, what was known last stays, with a word about it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "drain", "Drain"),
        Binding("u", "undrain", "Undrain"),
    ]

    def __init__(self) -> None:
        super().__init__(id="agent")
        self.agent: Agent | None = None

    def draw(self, picture: Picture, now: float) -> None:
        if self.agent is None:
            return
        found = picture.agent(self.agent.id)
        self.agent = found or self.agent
        gone = "" if found else "  (has gone from the pool)"
        self.title.update(f"Agent {printable(self.agent.label)}{gone}")
        self.body.update(agent_details(self.agent, picture.updated_s(self.agent, now)))

    def action_drain(self) -> None:
        if self.agent is not None:
            self.post_message(Order("drain", self.agent))

    def action_undrain(self) -> None:
        if self.agent is not None:
            self.post_message(Order("undrain", self.agent))


class RequestView(View):
    """One request, until ten minutes after its end."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("c", "cancel", "Cancel")]

    def __init__(self) -> None:
        super().__init__(id="request")
        self.request: Request | None = None

    def draw(self, picture: Picture, now: float) -> None:  # noqa: ARG002  # as the other pages
        if self.request is None:
            return
        story = picture.story
        self.title.update(f"Request {self.request.id}")
        timeline, trouble = (story.timeline, story.trouble) if story else (None, "")
        self.body.update(request_details(self.request, timeline, trouble))

    def action_cancel(self) -> None:
        if self.request is not None:
            self.post_message(Order("cancel", self.request))


def focus_of(page: Widget) -> Widget:
    """What of a page takes the keys."""
    return page.rows if isinstance(page, Table) else page


def _agent_key(shown: Shown) -> str:
    return shown.agent.id


def _request_key(request: Request) -> str:
    return request.id
