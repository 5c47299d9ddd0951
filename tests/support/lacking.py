"""What a test needs of the machine and the machine has not."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """The test skips on a laptop and fails in CI. `what` says how to get it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
