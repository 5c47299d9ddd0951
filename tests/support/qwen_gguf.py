"""Write a tiny model of the architecture `qwen3` as GGUF: causal, with random weights and a byte for a token. With a
pooling it is what embedding models and rerankers made of chat models are. Keys and tensors: `src/models/qwen3.cpp` of
llama.cpp."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

SIZE, HEADS, HEAD_SIZE, INNER, LAYERS, CONTEXT = 32, 2, 16, 64, 2, 512
END = "<|end|>"


def write_qwen(
    path: Path,
    *,
    pooling: gguf.PoolingType | None = None,
    labels: tuple[str, ...] = (),
    chat_template: str | None = None,
    rerank_template: str | None = None,
) -> None:
    """`labels`: with a classifier of as many outputs, whose softmax llama.cpp takes."""
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name("tiny qwen")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(HEAD_SIZE)
    writer.add_value_length(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e4)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if labels:
        writer.add_classifier_output_labels(list(labels))
    templates = {"default": chat_template, "rerank": rerank_template}
    if given := [{"name": name, "template": template} for name, template in templates.items() if template]:
        writer.add_chat_template(given)
    tokens = _add_vocabulary(writer)
    for name, tensor in _weights(len(tokens), len(labels)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter) -> list[str]:
    tokens = [*_byte_names(), "th", END]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)
    return tokens


def _byte_names() -> list[str]:
    """The characters that stand for the 256 bytes in such a vocabulary: printable ones for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]


def _weights(num_tokens: int, num_outputs: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    weights = {"token_embd.weight": matrix(num_tokens, SIZE), "output_norm.weight": 1 + matrix(SIZE)}
    if num_outputs:
        weights["cls.output.weight"] = matrix(num_outputs, SIZE)
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights[f"blk.{layer}.{part}.weight"] = matrix(SIZE, SIZE)
        for part in ("attn_norm", "ffn_norm"):
            weights[f"blk.{layer}.{part}.weight"] = 1 + matrix(SIZE)
        for part in ("attn_q_norm", "attn_k_norm"):
            weights[f"blk.{layer}.{part}.weight"] = 1 + matrix(HEAD_SIZE)
        for part in ("ffn_gate", "ffn_up"):
            weights[f"blk.{layer}.{part}.weight"] = matrix(INNER, SIZE)
        weights[f"blk.{layer}.ffn_down.weight"] = matrix(SIZE, INNER)
    return weights
