"""A LoRA adapter for SmolLM2, written with `gguf`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFValueType, GGUFWriter, dequantize
from known_gguf import reader_of
from numpy.typing import NDArray

EMBEDDING = 576
RANK = 4
ALPHA = 8.0
TARGET = "blk.29.ffn_down.weight"
"""Of the last layer: from 1,536 values to 576."""
INNER = 1536


def low_rank(seed: int = 0, size: float = 0.02) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`a` of shape (rank, inner) and `b` of shape (embedding, rank)."""
    rng = np.random.default_rng(seed)
    a = rng.normal(0, size, (RANK, INNER)).astype(np.float32)
    return a, rng.normal(0, size, (EMBEDDING, RANK)).astype(np.float32)


def write_adapter(
    path: Path,
    *,
    seed: int = 0,
    size: float = 0.02,
    architecture: str = "llama",
    target: str = TARGET,
    embedding: int = EMBEDDING,
    kind: str = "lora",
    invocation: tuple[int, ...] = (),
) -> Path:
    """`ALPHA / RANK * b @ a` is what the adapter adds to the weights at scale 1."""
    a, b = low_rank(seed, size)
    writer = GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", kind)
    writer.add_float32("adapter.lora.alpha", ALPHA)
    if invocation:
        tokens = "adapter.alora.invocation_tokens"
        writer.add_key_value(tokens, list(invocation), GGUFValueType.ARRAY, GGUFValueType.UINT32)
    writer.add_tensor(f"{target}.lora_a", a)
    writer.add_tensor(f"{target}.lora_b", np.ascontiguousarray(b[:embedding]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def with_delta(sound: Path, path: Path, scale: float, *, seed: int = 0, size: float = 0.02) -> Path:
    """A copy of the model in which `TARGET` is in 32 bits, with `scale` times what the adapter adds."""
    reader = reader_of(sound)
    writer = GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            inner = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        if tensor.name == TARGET:
            a, b = low_rank(seed, size)
            weights = dequantize(tensor.data, tensor.tensor_type).reshape(EMBEDDING, INNER)
            writer.add_tensor(TARGET, (weights + scale * ALPHA / RANK * (b @ a)).astype(np.float32))
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
