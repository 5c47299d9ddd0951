"""Tiny projections for tests: a vision transformer of random weights that llama.cpp's mtmd loads as it does real ones.

`janus_pro`: a patch is a token, images are attended to as text is. `gemma3`: patches are pooled, and an image is
attended to as a whole, so that it cannot be cut. Both bring every image to one size.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from PIL import Image

WIDTH, NUM_HEADS, NUM_LAYERS, PATCH = 32, 4, 2, 8
POOL = 2

Kind = Literal["janus_pro", "gemma3"]


def write_projector(
    path: Path,
    kind: Kind = "janus_pro",
    *,
    text_width: int = 576,
    image_size: int = 64,
    width: int = WIDTH,
    num_layers: int = NUM_LAYERS,
    seed: int = 1,
) -> Path:
    """For a text model with embeddings of `text_width` numbers; the default is SmolLM2-135M's. Returns `path`."""
    chance = np.random.default_rng(seed)

    def random(*shape: int, scale: float = 0.1) -> np.ndarray:
        return chance.normal(0, scale, shape).astype(np.float32)

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    for name, value in {
        "image_size": image_size, "patch_size": PATCH, "embedding_length": width, "feed_forward_length": 2 * width,
        "block_count": num_layers, "projection_dim": text_width, "attention.head_count": NUM_HEADS,
        "projector.scale_factor": POOL,
    }.items():  # fmt: skip
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5] * 3)

    tensors = {
        "v.patch_embd.weight": random(width, 3, PATCH, PATCH),
        "v.patch_embd.bias": random(width),
        "v.position_embd.weight": random((image_size // PATCH) ** 2, width, scale=1),
        "v.post_ln.weight": np.ones(width, np.float32),
        "v.post_ln.bias": random(width),
    }
    for number in range(num_layers):
        block = f"v.blk.{number}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors[f"{block}.{part}.weight"] = random(width, width)
            tensors[f"{block}.{part}.bias"] = random(width)
        tensors[f"{block}.ffn_up.weight"] = random(2 * width, width)
        tensors[f"{block}.ffn_up.bias"] = random(2 * width)
        tensors[f"{block}.ffn_down.weight"] = random(width, 2 * width)
        tensors[f"{block}.ffn_down.bias"] = random(width)
        for norm in ("ln1", "ln2"):
            tensors[f"{block}.{norm}.weight"] = np.ones(width, np.float32)
            tensors[f"{block}.{norm}.bias"] = random(width)
    if kind == "janus_pro":
        tensors["mm.0.weight"], tensors["mm.0.bias"] = random(text_width, width), random(text_width)
        tensors["mm.1.weight"], tensors["mm.1.bias"] = random(text_width, text_width, scale=0.02), random(text_width)
    else:
        tensors["mm.soft_emb_norm.weight"] = np.ones(width, np.float32)
        tensors["mm.input_projection.weight"] = random(width, text_width, scale=0.05)
    return write_file(writer, tensors, path)


def write_file(writer: gguf.GGUFWriter, tensors: dict[str, Any], path: Path) -> Path:
    """What is left to do when the numbers are in."""
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def picture(seed: int = 0, *, size: tuple[int, int] = (64, 64), kind: str = "PNG") -> bytes:
    """A file of large random tiles, another for every seed; equal ones are equal byte for byte."""
    tiles = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    into = io.BytesIO()
    Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST).save(into, kind)
    return into.getvalue()
