"""Keeps the site within `script-src 'self'`: what the theme writes as scripts within a page become files."""

from __future__ import annotations

import hashlib
import re

_INLINE = re.compile(r"<script>(?P<code>.+?)</script>", re.DOTALL)
FOLDER = "assets/javascripts/page"


class Scripts:
    """Those of all pages; few are different. They run where they stood: a script from a file blocks, too."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def taken_out(self, html: str, root: str) -> str:
        """The page with links to `files` in place of scripts; `root` is the site's, seen from the page, `..` or `.`."""

        def take(found: re.Match[str]) -> str:
            code = found["code"]
            name = f"{FOLDER}/{hashlib.sha256(code.encode()).hexdigest()[:12]}.js"
            self.files[name] = code
            return f'<script src="{root}/{name}"></script>'

        return _INLINE.sub(take, html)
