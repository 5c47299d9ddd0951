"""A tiny model of random weights that counts rows and columns of images (M-RoPE, as Qwen2-VL), and its projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from known_gguf import reader_of
from tiny_vision import write_file

WIDTH, NUM_HEADS, NUM_KV_HEADS, FEED_FORWARD, NUM_LAYERS = 64, 4, 2, 128, 2
EYE_WIDTH, PATCH, MERGE = 32, 8, 2
ARCH = "qwen2vl"
_VOCABULARY = ("model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id")


def write_grid_model(path: Path, vocabulary: Path, *, seed: int = 1) -> Path:
    """With the vocabulary of another GGUF. Returns `path`."""
    chance = np.random.default_rng(seed)
    reader = reader_of(vocabulary)
    writer = gguf.GGUFWriter(path, ARCH)
    numbers = {
        "block_count": NUM_LAYERS, "context_length": 4096, "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD, "attention.head_count": NUM_HEADS, "attention.head_count_kv": NUM_KV_HEADS,
    }  # fmt: skip
    for name, value in numbers.items():
        writer.add_uint32(f"{ARCH}.{name}", value)
    writer.add_float32(f"{ARCH}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_array(f"{ARCH}.rope.dimension_sections", [2, 3, 3, 0])
    tokens: Any = []
    for name in _VOCABULARY:
        field = reader.fields.get(f"tokenizer.ggml.{name}")
        if field is None:
            continue
        value: Any = field.contents()
        tokens = value if name == "tokens" else tokens
        match value:
            case str():
                writer.add_string(field.name, value)
            case int():
                writer.add_uint32(field.name, value)
            case _:
                writer.add_array(field.name, value)

    def random(*shape: int, scale: float = 0.1) -> Any:
        return chance.normal(0, scale, shape).astype(np.float32)

    kv_width = WIDTH // NUM_HEADS * NUM_KV_HEADS
    tensors = {
        "token_embd.weight": random(len(tokens), WIDTH, scale=1),
        "output_norm.weight": np.ones(WIDTH, np.float32),
    }
    for number in range(NUM_LAYERS):
        block = f"blk.{number}"
        for part, size in (("attn_q", WIDTH), ("attn_k", kv_width), ("attn_v", kv_width)):
            tensors[f"{block}.{part}.weight"], tensors[f"{block}.{part}.bias"] = (
                random(size, WIDTH, scale=0.3),
                random(size),
            )
        tensors[f"{block}.attn_output.weight"] = random(WIDTH, WIDTH, scale=0.3)
        tensors[f"{block}.ffn_gate.weight"] = random(FEED_FORWARD, WIDTH)
        tensors[f"{block}.ffn_up.weight"] = random(FEED_FORWARD, WIDTH)
        tensors[f"{block}.ffn_down.weight"] = random(WIDTH, FEED_FORWARD)
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"{block}.{norm}.weight"] = np.ones(WIDTH, np.float32)
    return write_file(writer, tensors, path)


def write_grid_projection(path: Path, *, seed: int = 2) -> Path:
    """Of a side of `n` pixels it makes `n / 16` rows or columns. Returns `path`."""
    chance = np.random.default_rng(seed)

    def random(*shape: int, scale: float = 0.1) -> Any:
        return chance.normal(0, scale, shape).astype(np.float32)

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "qwen2vl_merger")
    writer.add_bool("clip.use_gelu", True)
    numbers = {
        "image_size": 64, "patch_size": PATCH, "embedding_length": EYE_WIDTH, "feed_forward_length": 2 * EYE_WIDTH,
        "block_count": 1, "projection_dim": WIDTH, "attention.head_count": 2,
    }  # fmt: skip
    for name, value in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5] * 3)
    block, merged = "v.blk.0", EYE_WIDTH * MERGE**2
    tensors = {
        "v.patch_embd.weight": random(EYE_WIDTH, 3, PATCH, PATCH),
        "v.patch_embd.weight.1": random(EYE_WIDTH, 3, PATCH, PATCH),
        "mm.0.weight": random(merged, merged), "mm.0.bias": random(merged),
        "mm.2.weight": random(WIDTH, merged), "mm.2.bias": random(WIDTH),
        f"{block}.ffn_up.weight": random(2 * EYE_WIDTH, EYE_WIDTH), f"{block}.ffn_up.bias": random(2 * EYE_WIDTH),
        f"{block}.ffn_down.weight": random(EYE_WIDTH, 2 * EYE_WIDTH), f"{block}.ffn_down.bias": random(EYE_WIDTH),
    }  # fmt: skip
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        tensors[f"{block}.{part}.weight"] = random(EYE_WIDTH, EYE_WIDTH, scale=0.3)
        tensors[f"{block}.{part}.bias"] = random(EYE_WIDTH)
    for norm in (f"{block}.ln1", f"{block}.ln2", "v.post_ln"):
        tensors[f"{norm}.weight"], tensors[f"{norm}.bias"] = np.ones(EYE_WIDTH, np.float32), random(EYE_WIDTH)
    return write_file(writer, tensors, path)
