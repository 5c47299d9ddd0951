"""A model's facts, from its file."""

from __future__ import annotations

from paddler.model_facts import ModelFacts
from workers.agent.llama import Model, lib


def facts_of(model: Model, *, context_size: int) -> ModelFacts:
    """`context_size` is the agent's."""
    return ModelFacts(
        vocab_type=int(lib.llama_vocab_type(model.vocab)),
        n_vocab=model.vocab_size,
        n_ctx=context_size,
        n_ctx_train=model.context_length,
        n_embd=int(lib.llama_model_n_embd(model.pointer)),
        n_params=int(lib.llama_model_n_params(model.pointer)),
        size=int(lib.llama_model_size(model.pointer)),
    )
