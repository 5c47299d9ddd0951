"""Embedding vectors: normalised as a request asks, and packed as they travel."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddler.wire.agent import Embed


def pack_vector(vector: NDArray[Any], payload: Embed) -> bytes:
    """Little-endian float32, normalised as the payload says. A zero vector stays one."""
    values = vector.astype(np.float64)
    match payload.normalization:
        case "l2":
            scale = float(np.linalg.norm(values))
        case "rms_norm":
            scale = float(np.sqrt(np.mean(values**2) + payload.rms_epsilon))
        case "none":
            scale = 1.0
    return (values / (scale or 1.0)).astype("<f4").tobytes()


def unpack_vector(data: bytes) -> tuple[float, ...]:
    """The numbers of a packed vector."""
    return struct.unpack(f"<{len(data) // 4}f", data)
