"""Tiny llama models with random weights: SmolLM2's tokenizer, marks of a family as tokens, and a chat template.

Such a model says nothing sensible, but its engine, its vocabulary and its template are real. A few megabytes, made in
about a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from known_gguf import reader_of

_CONTROL, _USER_DEFINED = 3, 4  # LLAMA_TOKEN_TYPE_*
_EMBEDDING, _FEED_FORWARD, _HEADS, _KV_HEADS, _LAYERS = 64, 96, 4, 2, 2
CONTEXT = 4096
NUM_TOKENS = 2048
"""The first of SmolLM2's, with all bytes. What random weights draw a grammar mostly refuses, and then all tokens are
compared with it: with 49,152 that takes 50 ms a token."""


def write_model(
    path: Path,
    tokenizer: Path,
    template: str | None,
    *,
    control: tuple[str, ...] = (),
    user_defined: tuple[str, ...] = (),
    seed: int = 1,
    num_layers: int = _LAYERS,
) -> Path:
    """A GGUF at `path` with the tokenizer of another one, and more tokens: `control` ones give no text unless they are
    written out, `user_defined` ones do."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_block_count(num_layers)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_EMBEDDING // _HEADS)
    vocab_size = add_tokenizer(writer, tokenizer, control=control, user_defined=user_defined)
    if template is not None:
        writer.add_chat_template(template)
    write_tensors(
        writer, {name: _weights(name, shape, seed) for name, shape in _shapes(vocab_size, num_layers).items()}
    )
    return path


def add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: Path, *, control: tuple[str, ...] = (), user_defined: tuple[str, ...] = ()
) -> int:
    """As `write_model`; returns the number of tokens."""
    tokens, types, merges = _tokenizer_of(tokenizer)
    more = (*control, *user_defined)
    assert not {*more} & {*tokens}
    writer.add_vocab_size(len(tokens) + len(more))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*tokens, *more])
    writer.add_token_types([*types, *[_CONTROL] * len(control), *[_USER_DEFINED] * len(user_defined)])
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    return len(tokens) + len(more)


def write_tensors(writer: gguf.GGUFWriter, tensors: Mapping[str, Any]) -> None:
    """The end of a file."""
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shapes(vocab_size: int, num_layers: int = _LAYERS) -> dict[str, tuple[int, ...]]:
    """Rows and columns, as numpy has them."""
    kv = _EMBEDDING // _HEADS * _KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocab_size, _EMBEDDING),
        "output_norm.weight": (_EMBEDDING,),
        "output.weight": (vocab_size, _EMBEDDING),
    }
    for layer in range(num_layers):
        block = {
            "attn_norm": (_EMBEDDING,),
            "attn_q": (_EMBEDDING, _EMBEDDING),
            "attn_k": (kv, _EMBEDDING),
            "attn_v": (kv, _EMBEDDING),
            "attn_output": (_EMBEDDING, _EMBEDDING),
            "ffn_norm": (_EMBEDDING,),
            "ffn_gate": (_FEED_FORWARD, _EMBEDDING),
            "ffn_up": (_FEED_FORWARD, _EMBEDDING),
            "ffn_down": (_EMBEDDING, _FEED_FORWARD),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def _weights(name: str, shape: tuple[int, ...], seed: int) -> Any:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    rng = np.random.default_rng([seed, *name.encode()])
    return (rng.standard_normal(shape, np.float32) * 0.2).astype(np.float16)


@cache
def _tokenizer_of(path: Path) -> tuple[list[str], list[int], list[str]]:
    fields: Any = reader_of(path).fields
    tokens = [
        bytes(fields["tokenizer.ggml.tokens"].parts[at]).decode()
        for at in fields["tokenizer.ggml.tokens"].data[:NUM_TOKENS]
    ]
    types = [
        int(fields["tokenizer.ggml.token_type"].parts[at][0])
        for at in fields["tokenizer.ggml.token_type"].data[:NUM_TOKENS]
    ]
    merges = [bytes(fields["tokenizer.ggml.merges"].parts[at]).decode() for at in fields["tokenizer.ggml.merges"].data]
    kept = {*tokens}
    return tokens, types, [merge for merge in merges if kept.issuperset((*merge.split(" "), merge.replace(" ", "")))]


def write_spm_model(path: Path) -> Path:
    """The same weights under a vocabulary of SentencePiece, which puts a space before a text: bytes, ASCII, a few
    words."""
    words = ["▁the", "▁a", "▁fox", "he", "ed", "▁re", "▁red"]
    letters = ["▁", *map(chr, range(33, 127))]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *words]
    normal, unknown, byte_type = 1, 2, 6  # LLAMA_TOKEN_TYPE_*
    types = [unknown, _CONTROL, _CONTROL, *[byte_type] * 256, *[normal] * (len(letters) + len(words))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-spm")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_EMBEDDING // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * (len(tokens) - len(words)) + [-1.0 - number for number in range(len(words))])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    write_tensors(writer, {name: _weights(name, shape, 1) for name, shape in _shapes(len(tokens)).items()})
    return path
