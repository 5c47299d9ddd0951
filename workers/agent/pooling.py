"""How an agent pools, and what it can do because of that."""

from __future__ import annotations

from paddler.engine import ModelError
from paddler.errors import InvalidField
from paddler.wire.agent import Ability
from workers.agent.gguf_header import has_tensor
from workers.agent.llama import Model, Pooling

CLASSIFIER = ("cls.weight", "cls.output.weight")


def pooling_of(model: Model, asked: str | None) -> Pooling:
    """As asked, else as the model's author says, else the mean. Raises `ModelError`."""
    if asked is None:
        pooling = model.own_pooling or Pooling.MEAN
    else:
        try:
            pooling = Pooling[asked.upper()]
        except KeyError:
            known = ", ".join(one.name.lower() for one in Pooling)
            raise ModelError(f"pooling must be one of {known}, not {asked!r}") from None
    # Without one llama.cpp would take the first number of a vector for a rank.
    if pooling is Pooling.RANK and not has_tensor(model.path, *CLASSIFIER):
        raise ModelError(
            f"{model.path} has no classifier to rank with: choose a reranker, or another --pooling for embeddings"
        )
    return pooling


def check_pooled(pooling: Pooling) -> None:
    """Raises `InvalidField` when an agent with this pooling makes no embeddings."""
    if pooling is Pooling.NONE:
        raise InvalidField(
            "this agent does not pool (--pooling none), and an input has no vector: start it with another --pooling",
            param="model",
        )


def is_embedding_model(model: Model) -> bool:
    """It looks both ways, or was made for embeddings and knows no chat."""
    return not model.is_causal or (model.own_pooling is not None and model.chat_template is None)


def abilities_of(model: Model, pooling: Pooling) -> tuple[Ability, ...]:
    generates: tuple[Ability, ...] = () if is_embedding_model(model) else ("generate",)
    if pooling is Pooling.NONE:
        return generates
    return (*generates, "rerank" if pooling is Pooling.RANK else "embed")
