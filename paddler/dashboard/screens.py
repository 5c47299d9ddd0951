"""What lies over the pages: a question before something is done, and the keys."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS = (
    ("↑ ↓  k j", "move; also page up and down, home and end"),
    ("Enter", "look at one agent or request closely"),
    ("Esc", "back; clear the filter; quit"),
    ("1  2  Tab", "agents, requests"),
    ("/", "filter: words that are all in a row; of requests also"),
    ("", "state=  class=  tenant=  agent=, which the balancer looks for"),
    ("d  u", "drain, undrain an agent"),
    ("c", "cancel a request"),
    ("p", "the next pool"),
    ("q", "quit"),
)


class Confirm(ModalScreen[bool]):
    """True for yes. No is what anything but `y` and Enter means."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str, consequences: str) -> None:
        super().__init__()
        self._question = question
        self._consequences = consequences

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._question, classes="title", markup=False)
            yield Static(self._consequences, classes="body", markup=False)
            yield Static("[y] Yes    [n] No", classes="answers", markup=False)

    def action_answer(self, is_yes: bool) -> None:
        self.dismiss(is_yes)


class Help(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,question_mark", "close", "Close")]

    def compose(self) -> ComposeResult:
        keys = Table.grid(padding=(0, 2))
        keys.add_column(style="bold", no_wrap=True)
        keys.add_column()
        for key, what in KEYS:
            keys.add_row(key, what)
        with Vertical(classes="dialog"):
            yield Static("Keys", classes="title")
            yield Static(keys, classes="body")
            yield Static("[Esc] Close", classes="answers", markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
