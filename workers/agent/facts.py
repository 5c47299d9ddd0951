"""A model's facts, from its file, and what an engine says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from paddler.engine import EngineInfo
from paddler.engine_settings import EngineSettings
from paddler.model_facts import ModelFacts
from paddler.wire.agent import Ability
from workers.agent.gguf_header import metadata_of
from workers.agent.identity import vocabulary_of, weights_of
from workers.agent.llama import Model, build_info, lib
from workers.agent.naming import bytes_per_token, name_of
from workers.agent.prompt import marks_of


def engine_info(
    model: Model, settings: EngineSettings, *, context_size: int, max_parked: int = 0, abilities: Sequence[Ability]
) -> EngineInfo:
    """`context_size` is the agent's; `abilities` without those that all of them have."""
    bos, eos = marks_of(model)
    return EngineInfo(
        model=settings.model_name or name_of(model),
        slots_total=settings.slots,
        context_size=context_size,
        max_parked=max_parked,
        build=build_info(),
        bytes_per_token=bytes_per_token(model),
        abilities=(*abilities, "tokenize"),
        facts=facts_of(model, context_size=context_size),
        vocabulary=vocabulary_of(model),
        weights=weights_of(model, settings),
        metadata=metadata_of(model.path) | model.metadata,
        bos=bos,
        eos=eos,
    )


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
