"""Tiny models of random weights whose memory is no plain KV cache: a sliding window, a recurrent state, and layers with
cells and layers with a state in turn. Their tokenizer is SmolLM2's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from tiny_gguf import add_tokenizer, write_tensors

Kind = Literal["gemma3", "mamba", "jamba"]
WINDOW = 16
_EMBEDDING, _FEED_FORWARD, _HEADS, _KV_HEADS = 64, 96, 4, 2
_INNER, _STATE, _KERNEL, _RANK = 2 * _EMBEDDING, 16, 4, 4
_LAYERS: dict[Kind, int] = {"gemma3": 6, "mamba": 2, "jamba": 3}
"""Of gemma3 every sixth looks at all tokens, the others at the last `WINDOW`."""
_ATTENDING = {"gemma3": range(6), "mamba": range(0), "jamba": range(1, 2)}


def write_memory_model(path: Path, tokenizer: Path, kind: Kind) -> Path:
    """Returns `path`."""
    num_layers, attending = _LAYERS[kind], _ATTENDING[kind]
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name(f"tiny-{kind}")
    writer.add_context_length(4096)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_block_count(num_layers)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_feed_forward_length(_FEED_FORWARD if kind != "mamba" else 0)
    writer.add_head_count(_HEADS if attending else 0)
    if kind == "gemma3":
        writer.add_head_count_kv(_KV_HEADS)
        writer.add_key_length(_EMBEDDING // _HEADS)
        writer.add_value_length(_EMBEDDING // _HEADS)
        writer.add_sliding_window(WINDOW)
    else:
        writer.add_head_count_kv([_KV_HEADS if layer in attending else 0 for layer in range(num_layers)])
        writer.add_ssm_conv_kernel(_KERNEL)
        writer.add_ssm_inner_size(_INNER)
        writer.add_ssm_state_size(_STATE)
        writer.add_ssm_time_step_rank(_RANK)
    vocab_size = add_tokenizer(writer, tokenizer)
    chance = np.random.default_rng(1)
    tensors: dict[str, Any] = {
        "token_embd.weight": _random(chance, vocab_size, _EMBEDDING),
        "output_norm.weight": np.ones(_EMBEDDING, np.float32),
        "output.weight": _random(chance, vocab_size, _EMBEDDING),
    }
    for layer in range(num_layers):
        parts = _attention(chance, kind) if layer in attending else _state_space(chance, kind)
        if kind != "mamba":
            parts |= _feed_forward(chance, kind)
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in parts.items()}
    write_tensors(writer, tensors)
    return path


def _random(chance: np.random.Generator, *shape: int) -> Any:
    return chance.normal(0, 0.2, shape).astype(np.float32)


def _ones(*names: str, size: int = _EMBEDDING) -> dict[str, Any]:
    return {f"{name}.weight": np.ones(size, np.float32) for name in names}


def _attention(chance: np.random.Generator, kind: Kind) -> dict[str, Any]:
    head = _EMBEDDING // _HEADS
    norms = _ones("attn_norm")
    if kind == "gemma3":
        norms |= _ones("post_attention_norm") | _ones("attn_q_norm", "attn_k_norm", size=head)
    return norms | {
        "attn_q.weight": _random(chance, _EMBEDDING, _EMBEDDING),
        "attn_k.weight": _random(chance, head * _KV_HEADS, _EMBEDDING),
        "attn_v.weight": _random(chance, head * _KV_HEADS, _EMBEDDING),
        "attn_output.weight": _random(chance, _EMBEDDING, _EMBEDDING),
    }


def _feed_forward(chance: np.random.Generator, kind: Kind) -> dict[str, Any]:
    return _ones("ffn_norm", *(("post_ffw_norm",) if kind == "gemma3" else ())) | {
        "ffn_gate.weight": _random(chance, _FEED_FORWARD, _EMBEDDING),
        "ffn_up.weight": _random(chance, _FEED_FORWARD, _EMBEDDING),
        "ffn_down.weight": _random(chance, _EMBEDDING, _FEED_FORWARD),
    }


def _state_space(chance: np.random.Generator, kind: Kind) -> dict[str, Any]:
    parts = _ones("attn_norm") | {
        "ssm_in.weight": _random(chance, 2 * _INNER, _EMBEDDING),
        "ssm_conv1d.weight": _random(chance, _INNER, _KERNEL),
        "ssm_conv1d.bias": _random(chance, _INNER),
        "ssm_x.weight": _random(chance, _RANK + 2 * _STATE, _INNER),
        "ssm_dt.weight": _random(chance, _INNER, _RANK),
        "ssm_dt.bias": _random(chance, _INNER),
        "ssm_a": -np.tile(np.arange(1, _STATE + 1, dtype=np.float32), (_INNER, 1)) / _STATE,
        "ssm_d": np.ones(_INNER, np.float32),
        "ssm_out.weight": _random(chance, _EMBEDDING, _INNER),
    }
    if kind == "jamba":
        parts |= _ones("ssm_dt_norm", size=_RANK) | _ones("ssm_b_norm", "ssm_c_norm", size=_STATE)
    return parts
