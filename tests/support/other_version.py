"""`paddler` as a version of another format: `other_version.py FORMAT OLDEST COMMAND ...`.

The numbers are set before anything reads them; scripts, messages and keys are those of this version."""

from __future__ import annotations

import sys
from pathlib import Path

from paddler.store import format

ENTRY = str(Path(__file__))


def main() -> None:
    number, oldest = int(sys.argv.pop(1)), int(sys.argv.pop(1))
    setattr(format, "FORMAT", number)  # noqa: B010  # a constant, but for this
    setattr(format, "OLDEST_FORMAT", oldest)  # noqa: B010
    from paddler.cli import main as command

    command()


if __name__ == "__main__":
    main()
