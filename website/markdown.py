"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """For a cell of a table: one line, no bar ends it."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """In code marks, whatever is in it. The empty text is none."""
    return f"`{text}`" if text and "`" not in text else f"`` {text} ``" if text else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Nothing where there is no row."""
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines, ""]) if lines else ""


def plain(text: str) -> str:
    """Words of the code in a paragraph: what looks like HTML there, but for what is in code marks, is none."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def page(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"
