"""The forward pass of a BERT encoder in numpy (Devlin et al., 2019): what llama.cpp's answers are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bert_gguf import Bert
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def hidden_states(bert: Bert, ids: Sequence[int]) -> Floats:
    """One vector for each token, of the last layer."""
    weights = {name: weight.astype(np.float64) for name, weight in bert.weights.items()}

    def linear(name: str, values: Floats) -> Floats:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, values: Floats) -> Floats:
        centred = values - values.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + bert.norm_epsilon)
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(values: Floats) -> Floats:
        return values.reshape(len(ids), bert.num_heads, -1).transpose(1, 0, 2)

    states = weights["token_embd.weight"][list(ids)] + weights["token_types.weight"][0]
    states = norm("token_embd_norm", states + weights["position_embd.weight"][: len(ids)])
    for layer in range(bert.num_layers):
        block = f"blk.{layer}"
        query, key, value = (heads(linear(f"{block}.attn_{part}", states)) for part in "qkv")
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        mixed = (_softmax(scores) @ value).transpose(1, 0, 2).reshape(len(ids), -1)
        states = norm(f"{block}.attn_output_norm", states + linear(f"{block}.attn_output", mixed))
        inner = _gelu(linear(f"{block}.ffn_up", states))
        states = norm(f"{block}.layer_output_norm", states + linear(f"{block}.ffn_down", inner))
    return states


def classify(bert: Bert, ids: Sequence[int]) -> Floats:
    """The classifier's outputs, from the first token's vector."""
    state = hidden_states(bert, ids)[0]
    if "cls.weight" in bert.weights:
        state = np.tanh(bert.weights["cls.weight"] @ state + bert.weights["cls.bias"])
    return bert.weights["cls.output.weight"] @ state + bert.weights["cls.output.bias"]


def _softmax(values: Floats) -> Floats:
    raised = np.exp(values - values.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def _gelu(values: Floats) -> Floats:
    return 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))
