"""A table of which only what is in view is ever drawn, so that its length costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from paddler.dashboard.columns import TONES, Cell, Column, fitted
from paddler.dashboard.text import fit

T = TypeVar("T")

CURSOR = Style(reverse=True)
GAP = "  "


class Rows(ScrollView, Generic[T], can_focus=True):
    """`show` gives it all rows; a line is drawn anew only when it reads differently from before. The cursor stays with
    its row, by `key`, wherever that moves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f,space", "page(1)", "Page down", show=False),
        Binding("home,g", "end(0)", "First", show=False),
        Binding("end,G", "end(1)", "Last", show=False),
        Binding("enter,l,right", "open", "Details", key_display="⏎"),
    ]

    class Opened(Message):
        """The row under the cursor is to be looked at closely."""

    def __init__(self, columns: Sequence[Column[T]], key: Callable[[T], str], *, id: str) -> None:
        super().__init__(id=id)
        self.header = Static(classes="header")
        self._columns = columns
        self._key = key
        self._rows: Sequence[T] = ()
        self._cursor = 0
        self._cursor_key: str | None = None
        self._is_stale = False
        self._drawn: dict[int, tuple[bool, bool, list[Cell]]] = {}

    @property
    def selected(self) -> T | None:
        """The row under the cursor."""
        return self._rows[self._cursor] if self._rows else None

    def show(self, rows: Sequence[T], *, is_stale: bool = False) -> None:
        """`is_stale`: nobody knows whether it is still so."""
        self._rows = rows
        self._is_stale = is_stale
        if self._cursor_key is not None:
            found = next((at for at, row in enumerate(rows) if self._key(row) == self._cursor_key), None)
            if found is not None and found != self._cursor:
                self._put_cursor(found)
        self._cursor = max(0, min(self._cursor, len(rows) - 1))
        self._cursor_key = self._key(rows[self._cursor]) if rows else None
        if self.virtual_size.height != len(rows):
            self.virtual_size = Size(self.size.width, len(rows))
        top = self.scroll_offset.y
        for y in range(top, top + self.size.height):
            if self._drawn.get(y) != self._content(y):
                self.refresh_line(y)

    def on_resize(self, _event: Resize) -> None:
        self._drawn.clear()
        self.virtual_size = Size(self.size.width, len(self._rows))
        titles = (fit(column.title, width, right=column.right) for column, width in fitted(self._columns, self._width))
        self.header.update(GAP.join(titles))

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        content = self._content(row)
        self._drawn[row] = content
        is_cursor, is_stale, cells = content
        base = self.rich_style + (CURSOR if is_cursor else Style()) + (TONES["dim"] if is_stale else Style())
        segments: list[Segment] = []
        if cells:
            widths = fitted(self._columns, self._width)
            for number, ((column, width), cell) in enumerate(zip(widths, cells, strict=True)):
                segments.append(Segment(GAP if number else "", base))
                segments.append(Segment(fit(cell.text, width, right=column.right), base + TONES[cell.tone]))
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def action_move(self, by: int) -> None:
        self._move(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._move(self._cursor + by * max(1, self.size.height - 1))

    def action_end(self, last: int) -> None:
        self._move(len(self._rows) - 1 if last else 0)

    def action_open(self) -> None:
        if self._cursor_key is not None:
            self.post_message(self.Opened())

    @property
    def _width(self) -> int:
        """A cell is kept for the scroll bar, or columns would jump when it appears."""
        return self.size.width - (0 if self.show_vertical_scrollbar else 1)

    def _content(self, y: int) -> tuple[bool, bool, list[Cell]]:
        if not 0 <= y < len(self._rows):
            return False, False, []
        row = self._rows[y]
        return y == self._cursor, self._is_stale, [column.cell(row) for column, _ in fitted(self._columns, self._width)]

    def _move(self, to: int) -> None:
        if self._rows:
            self._put_cursor(max(0, min(to, len(self._rows) - 1)))
            self._cursor_key = self._key(self._rows[self._cursor])

    def _put_cursor(self, to: int) -> None:
        before, self._cursor = self._cursor, to
        self.refresh_line(before)
        self.refresh_line(to)
        top, height = self.scroll_offset.y, self.size.height
        if not top <= to < top + height:
            self.scroll_to(y=to if to < top else to - height + 1, animate=False, immediate=True)
