"""Where the files of the repository are on the site, so that links between them lead somewhere there as on a forge.

`docs/keys.md` is `keys.md`; what is outside `docs/` has its place below `project/`, documents as pages and all else, a
Dockerfile or a schema, as the file itself if a document links to it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
DOCS, PROJECT = "docs/", "project/"
PACKAGES = ("paddler", "api", "workers", "docker")

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[\w-]*)(?P<rest>[^\n`]*)$")
_LINK = re.compile(r"(?P<before>\]\(\s*)(?P<target>[^)\s]+)(?P<after>[^)]*\))")
_NAMED = re.compile(r"(?<![\[`\w])`(?P<path>(?:[\w.-]+/)+[\w-]+\.md|[A-Z]+\.md)`(?!\])")


def documents() -> list[str]:
    """The Markdown files outside `docs/` that are pages."""
    found = [*ROOT.glob("*.md"), *(path for top in PACKAGES for path in (ROOT / top).rglob("*.md"))]
    return sorted(str(path.relative_to(ROOT)) for path in found if "node_modules" not in path.parts)


def place_of(path: str) -> str:
    """Of a file of the repository, its place below the site's root."""
    return path.removeprefix(DOCS) if path.startswith(DOCS) else PROJECT + path


def path_of(place: str) -> str:
    """The reverse of `place_of`."""
    return place.removeprefix(PROJECT) if place.startswith(PROJECT) else DOCS + place


def pieces(markdown: str) -> Iterator[tuple[bool, str]]:
    """The text in lines, each with whether it is within a fence (its first and last line are)."""
    end = ""
    for line in markdown.splitlines(keepends=True):
        fence = _FENCE.match(line.rstrip("\n"))
        if not end and fence:
            end = fence["fence"]
            yield True, line
        elif end:
            is_end = fence is not None and fence["fence"].startswith(end) and not fence["language"]
            yield True, line
            end = "" if is_end else end
        else:
            yield False, line


def is_relative(target: str) -> bool:
    parts = urlsplit(target)
    return not parts.scheme and not parts.netloc and bool(parts.path) and not parts.path.startswith("/")


def linked(markdown: str) -> Iterator[str]:
    """The targets of its links, as they are written."""
    for is_code, line in pieces(markdown):
        if not is_code:
            yield from (found["target"] for found in _LINK.finditer(re.sub(r"`[^`]*`", "", line)))


def resolved(target: str, path: str) -> str:
    """The file of the repository that a relative link in the document `path` means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), urlsplit(target).path))


def for_site(markdown: str, place: str) -> str:
    """The text of the document at `place` as the site has it: links from page to page, documents that are named in code
    marks linked, and nothing behind the language of a fence (`tests/support/doc_blocks.py` reads that)."""
    path = path_of(place)

    def relink(found: re.Match[str]) -> str:
        target = found["target"]
        if not is_relative(target):
            return found[0]
        anchor = f"#{fragment}" if (fragment := urlsplit(target).fragment) else ""
        return f"{found['before']}{_relative(resolved(target, path), place)}{anchor}{found['after']}"

    def link(found: re.Match[str]) -> str:
        starts = (found["path"], resolved(found["path"], path))
        named = next((one for one in starts if (ROOT / one).is_file()), None)
        return found[0] if named is None or named == path else f"[{found[0]}]({_relative(named, place)})"

    lines: list[str] = []
    for is_code, line in pieces(markdown):
        if is_code:
            fence = _FENCE.match(line.rstrip("\n"))
            lines.append(f"{fence['indent']}{fence['fence']}{fence['language']}\n" if fence else line)
        else:
            lines.append(_NAMED.sub(link, _LINK.sub(relink, line)))
    return "".join(lines)


def _relative(path: str, place: str) -> str:
    return posixpath.relpath(place_of(path), posixpath.dirname(place) or ".")
