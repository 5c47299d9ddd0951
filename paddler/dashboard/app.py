"""The dashboard on a terminal. Everything that it shows is in the picture; everything that it does is asked of the
balancer."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Footer, Input

from paddler.clock import Clock
from paddler.dashboard import words
from paddler.dashboard.client import CannotTalk, Management
from paddler.dashboard.feed import Feed
from paddler.dashboard.filtering import RequestFilter
from paddler.dashboard.heading import Heading
from paddler.dashboard.objects import Agent, AgentOrder, CancelAnswer, Request
from paddler.dashboard.panes import AgentsTable, AgentView, Order, RequestsTable, RequestView, focus_of
from paddler.dashboard.picture import Picture
from paddler.dashboard.screens import Confirm, Help
from paddler.dashboard.text import printable

DRAW_S = 0.25
"""However often something changes, it is drawn so often at most."""
TOLD_S = 6.0


class Dashboard(App[None]):
    """`management` is closed by whoever opened it."""

    CSS_PATH = Path(__file__).with_name("style.tcss")  # a relative one would be looked for beside a subclass
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "show('agents')", "Agents", show=False),
        Binding("2", "show('requests')", "Requests", show=False),
        Binding("tab", "switch", "Agents/requests", priority=True),
        Binding("slash", "filter", "Filter"),
        Binding("p", "next_pool", "Pool", show=False),
        Binding("question_mark", "help", "Help"),
        Binding("escape", "leave", "Back", show=False),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(self, management: Management, where: str, pool: str, clock: Clock) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.animation_level = "none"
        self.picture = Picture(pool)
        self._management = management
        self._where = where
        self._clock = clock
        self._feed = Feed(management, self.picture, clock)
        self._drawn = (-1, -1)
        self._typed = {"agents": "", "requests": ""}
        self.heading = Heading(markup=False)
        self.tables = {"agents": AgentsTable(where), "requests": RequestsTable()}
        self.agent_view = AgentView()
        self.request_view = RequestView()
        self.filter_input = Input(id="filter", placeholder="filter", compact=True)

    def compose(self) -> ComposeResult:
        yield self.heading
        with ContentSwitcher(initial="agents", id="pages"):
            yield from self.tables.values()
            yield self.agent_view
            yield self.request_view
        yield self.filter_input
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self._start_feed()
        self.set_interval(DRAW_S, self._draw_if_new)
        self._page("agents")

    def on_resize(self) -> None:
        """Once the pages have their new sizes."""
        self.call_after_refresh(lambda: self._draw(self._clock.monotonic()))

    # What is drawn.

    def _draw_if_new(self) -> None:
        now = self._clock.monotonic()
        if (self.picture.version, int(now)) != self._drawn:
            self._draw(now)

    def _draw(self, now: float) -> None:
        self._drawn = (self.picture.version, int(now))
        shown = self._shown
        filter_text = self._typed[self._table]
        self.heading.draw(
            self.picture, self._where, now, is_requests=self._table == "requests", filter_text=filter_text
        )
        match shown:
            case AgentsTable() | RequestsTable():
                shown.draw(self.picture, now, filter_text)
            case AgentView() | RequestView():
                shown.draw(self.picture, now)
            case _:
                raise AssertionError(shown)

    @property
    def _shown(self) -> Widget:
        switcher = self._switcher
        return switcher.get_child_by_id(switcher.current or "agents")

    @property
    def _switcher(self) -> ContentSwitcher:
        return self.screen_stack[0].query_one("#pages", ContentSwitcher)

    @property
    def _table(self) -> str:
        """The table that is shown, or from which one came to what is shown."""
        return "requests" if self._switcher.current in ("requests", "request") else "agents"

    def _page(self, name: str) -> None:
        self._switcher.current = name
        self._want()
        focus_of(self._shown).focus()
        self._draw(self._clock.monotonic())

    def _want(self) -> None:
        """Nobody asks for what nobody looks at."""
        name = self._switcher.current
        text = self._typed["requests"]
        asked = RequestFilter.parse(text, self.picture.agents).asked
        self._feed.want(asked if name == "requests" else None)
        request = self.request_view.request
        self._feed.watch(request.id if name == "request" and request else None)

    # What is typed.

    def action_show(self, name: str) -> None:
        self._page(name)

    def action_switch(self) -> None:
        if not self.filter_input.has_focus and len(self.screen_stack) == 1:
            self._page("agents" if self._table == "requests" else "requests")

    def action_filter(self) -> None:
        if self._switcher.current not in self.tables:
            self._page(self._table)
        self.filter_input.value = self._typed[self._table]
        self.filter_input.display = True
        self.filter_input.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Words count as they are typed; what the balancer looks for when it is all there."""
        if self.filter_input.display:
            self._typed[self._table] = event.value
            self._draw(self._clock.monotonic())

    def on_input_submitted(self) -> None:
        self.filter_input.display = False
        self._page(self._table)

    def action_leave(self) -> None:
        if self.filter_input.display or (self._switcher.current in self.tables and self._typed[self._table]):
            self.filter_input.display = False
            self._typed[self._table] = ""
            self._page(self._table)
        elif self._switcher.current in self.tables:
            self.exit()
        else:
            self._page(self._table)

    def action_next_pool(self) -> None:
        names = self.picture.pool_names
        at = names.index(self.picture.pool_name) if self.picture.pool_name in names else -1
        name = names[(at + 1) % len(names)]
        if name == self.picture.pool_name:
            self._say(f"There is no pool but {name}.")
            return
        self.picture = Picture(name)
        self.picture.pool_names = names
        self._feed = Feed(self._management, self.picture, self._clock)
        self._start_feed()
        self._page(self._table)

    def action_help(self) -> None:
        self.push_screen(Help())

    def on_rows_opened(self) -> None:
        match self._shown:
            case AgentsTable() as table if table.agents.selected:
                self.agent_view.agent = table.agents.selected.agent
                self._page("agent")
            case RequestsTable() as table if table.requests.selected:
                self.request_view.request = table.requests.selected
                self._page("request")
            case _:
                pass

    # What is done.

    def on_order(self, order: Order) -> None:
        about = order.about
        if isinstance(about, Agent):
            explained = words.confirm_drain(about) if order.verb == "drain" else words.confirm_undrain(about)
            question = f"{order.verb.capitalize()} agent {printable(about.label)}?"
        else:
            question, explained = f"Cancel request {about.id}?", words.confirm_cancel(about)

        def act(is_yes: bool | None) -> None:
            if is_yes:
                self.run_worker(self._do(order.verb, about), exit_on_error=True)

        self.push_screen(Confirm(question, explained), act)

    async def _do(self, verb: str, about: Agent | Request) -> None:
        try:
            if isinstance(about, Agent):
                told = await self._management.post(f"/api/v1/agent/{about.id}/{verb}", AgentOrder)
                self._say(words.told(about, told))
            else:
                answer = await self._management.post(f"/api/v1/requests/{about.id}/cancel", CancelAnswer)
                self._say(words.cancelled(answer))
        except CannotTalk as error:
            self.notify(f"{printable(str(error))}.", title="Not done", severity="error", markup=False, timeout=TOLD_S)

    def _say(self, text: str) -> None:
        self.notify(printable(text), markup=False, timeout=TOLD_S)

    def _start_feed(self) -> None:
        self.run_worker(self._feed.run(), group="feed", exclusive=True)


async def run_dashboard(management: Management, where: str, pool: str, clock: Clock) -> None:
    """Until its user leaves. The mouse is left to the terminal, so that ids can be marked and copied."""
    await Dashboard(management, where, pool, clock).run_async(mouse=False)
