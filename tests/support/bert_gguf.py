"""Write encoders of the BERT family as GGUF: a real one from its published weights, tiny ones with random weights.

Which keys and tensors llama.cpp wants of the architecture `bert` and of a WordPiece vocabulary: `src/models/bert.cpp`,
`src/llama-vocab.cpp` and `conversion/bert.py` of llama.cpp. Weights have GGUF's names and numpy's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORD_START = "\u2581"


class Bert(Struct, frozen=True, kw_only=True):
    """An encoder. `tokens` are as in a `vocab.txt`: `##` begins what goes on within a word. `pooling` None writes no
    key; `labels` are the names of the classifier's outputs."""

    name: str
    tokens: tuple[str, ...]
    weights: Weights
    num_layers: int
    num_heads: int
    num_positions: int
    norm_epsilon: float = 1e-12
    pooling: gguf.PoolingType | None = None
    labels: tuple[str, ...] = ()
    rerank_template: str | None = None

    def id_of(self, token: str) -> int:
        return self.tokens.index(token)


def write_bert(bert: Bert, path: Path, *, is_half: bool = False) -> None:
    """`is_half`: matrices of the layers and of the words as 16-bit numbers, as published files mostly have them."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(bert.name)
    writer.add_block_count(bert.num_layers)
    writer.add_context_length(bert.num_positions)
    writer.add_embedding_length(bert.weights["token_embd.weight"].shape[1])
    writer.add_feed_forward_length(bert.weights["blk.0.ffn_up.weight"].shape[0])
    writer.add_head_count(bert.num_heads)
    writer.add_layer_norm_eps(bert.norm_epsilon)
    writer.add_causal_attention(False)
    writer.add_token_type_count(bert.weights["token_types.weight"].shape[0])
    if bert.pooling is not None:
        writer.add_pooling_type(bert.pooling)
    if bert.labels:
        writer.add_classifier_output_labels(list(bert.labels))
    if bert.rerank_template is not None:
        writer.add_chat_template([{"name": "rerank", "template": bert.rerank_template}])
    _add_vocabulary(writer, bert)
    for name, weight in bert.weights.items():
        is_small = weight.ndim == 1 or name.startswith(("position_embd", "token_types", "cls"))
        writer.add_tensor(name, weight.astype(np.float16 if is_half and not is_small else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, bert: Bert) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_written(token) for token in bert.tokens])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIAL else normal for token in bert.tokens])
    pad, unknown, first, separator, mask = (bert.id_of(token) for token in SPECIAL)
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unknown)
    writer.add_bos_token_id(first)
    writer.add_eos_token_id(separator)
    writer.add_sep_token_id(separator)
    writer.add_mask_token_id(mask)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)


def _written(token: str) -> str:
    """llama.cpp marks where words begin, not where they go on."""
    if token in SPECIAL:
        return token
    return token[2:] if token.startswith("##") else WORD_START + token


def random_bert(
    words: Sequence[str],
    *,
    name: str = "tiny",
    seed: int = 1,
    num_outputs: int = 0,
    has_dense: bool = True,
    pooling: gguf.PoolingType | None = None,
    rerank_template: str | None = None,
) -> Bert:
    """Two layers of 32 numbers with random weights, for texts of at most 64 tokens. `num_outputs`: a classifier with so
    many; `has_dense`: with a layer before it."""
    size, inner, num_layers, num_positions = 32, 64, 2, 64
    tokens = (*SPECIAL, *words)
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    weights = {
        "token_embd.weight": matrix(len(tokens), size),
        "token_types.weight": matrix(2, size),
        "position_embd.weight": matrix(num_positions, size),
        "token_embd_norm.weight": 1 + matrix(size),
        "token_embd_norm.bias": matrix(size),
    }
    for layer in range(num_layers):
        shapes = {"attn_q": size, "attn_k": size, "attn_v": size, "attn_output": size, "ffn_up": inner}
        for part, rows in shapes.items():
            weights[f"blk.{layer}.{part}.weight"] = matrix(rows, size)
            weights[f"blk.{layer}.{part}.bias"] = matrix(rows)
        weights[f"blk.{layer}.ffn_down.weight"] = matrix(size, inner)
        weights[f"blk.{layer}.ffn_down.bias"] = matrix(size)
        for part in ("attn_output_norm", "layer_output_norm"):
            weights[f"blk.{layer}.{part}.weight"] = 1 + matrix(size)
            weights[f"blk.{layer}.{part}.bias"] = matrix(size)
    if num_outputs:
        if has_dense:
            weights |= {"cls.weight": matrix(size, size), "cls.bias": matrix(size)}
        weights |= {"cls.output.weight": matrix(num_outputs, size), "cls.output.bias": matrix(num_outputs)}
    return Bert(
        name=name,
        tokens=tokens,
        weights=weights,
        num_layers=num_layers,
        num_heads=4,
        num_positions=num_positions,
        pooling=pooling,
        labels=tuple(f"label {number}" for number in range(num_outputs)) if num_outputs > 1 else (),
        rerank_template=rerank_template,
    )
