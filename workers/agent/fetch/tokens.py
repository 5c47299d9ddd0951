"""Secrets come from files, which are read anew at each try: a token that was replaced counts at once."""

from __future__ import annotations

from pathlib import Path

from paddler.issues import IssueKind
from workers.agent.fetch.errors import FetchError


def read_token(path: Path, kind: IssueKind) -> str:
    """Raises `FetchError` of `kind` where there is none."""
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchError(kind, f"the token file {path} cannot be read: {error}") from error
    if not token or not token.isascii() or any(one.isspace() for one in token):
        raise FetchError(kind, f"the token file {path} has no token: one line without spaces is expected")
    return token
