"""The section of CHANGELOG.md for a tag, as the notes of its release. Python's standard library only.

Ends with 1 where the tag is not the version of `pyproject.toml`, or the changelog has no section for it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def section(changelog: str, version: str) -> str:
    """What stands under the heading of a version. Raises `LookupError` where there is none, or nothing under it."""
    found = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|^\[[^\]]+\]: |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if found is None or not found[1].strip():
        raise LookupError(f"CHANGELOG.md has no section [{version}]: rename [Unreleased], with the day behind it")
    return found[1].strip() + "\n"


def notes(tag: str) -> str:
    """Raises `LookupError`."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{version}":
        raise LookupError(f"the tag {tag} is not v{version}, the version of pyproject.toml")
    return section((ROOT / "CHANGELOG.md").read_text(), version)


if __name__ == "__main__":
    try:
        print(notes(sys.argv[1]), end="")
    except LookupError as error:
        sys.exit(f"release_notes: {error}")
