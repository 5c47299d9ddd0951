"""Arrays of token ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TokenArray = NDArray[np.int32]


def num_common(one: TokenArray, other: TokenArray) -> int:
    """How many first tokens of two arrays are equal."""
    length = min(len(one), len(other))
    if length == 0 or one[0] != other[0]:
        return 0
    differs = one[:length] != other[:length]
    at = int(differs.argmax())
    return at if differs[at] else length
