"""Embedding vectors: normalised as a request asks, and packed as they travel."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddler.engine import Job
from paddler.errors import EngineFailed
from paddler.wire.agent import Encode, Rerank

NUMBER_SIZE = 4
"""Bytes of one number."""


def check_earlier_size(job: Job, size: int) -> None:
    """Raises `EngineFailed` when the vectors of an earlier attempt are not of the `size` that this model's have."""
    if job.vector_size not in (0, size):
        raise EngineFailed(
            f"the request was begun by an agent with another model: its vectors have {job.vector_size} dimensions, "
            f"this model's {size}"
        )


def pack_vector(vector: NDArray[Any], payload: Encode) -> bytes:
    """Little-endian float32: its first `dimensions` numbers, normalised after that as the payload says. A zero vector
    stays one, and a score as it is."""
    values = vector.astype(np.float64)
    if isinstance(payload, Rerank):
        return values.astype("<f4").tobytes()
    values = values[: payload.dimensions]
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
    return struct.unpack(f"<{len(data) // NUMBER_SIZE}f", data)
