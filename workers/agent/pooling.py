"""How an agent pools, and what it can do because of that."""

from __future__ import annotations

from paddler.engine import ModelError
from paddler.errors import InvalidField
from paddler.wire.agent import Ability, Embed, Encode, Rerank
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
            raise ModelError(f"pooling must be one of {known}, not {asked!r}", kind="SettingsInvalid") from None
    # Without one llama.cpp would take the first number of a vector for a rank.
    if pooling is Pooling.RANK and not has_tensor(model.path, *CLASSIFIER):
        raise ModelError(
            f"{model.path} has no classifier to rank with: choose a reranker, or another --pooling for embeddings",
            kind="ModelCannotBeLoaded" if asked is None else "SettingsInvalid",
        )
    return pooling


def check_pooled(pooling: Pooling, payload: Encode) -> None:
    """Raises `InvalidField` when an agent with this pooling cannot do what is asked."""
    if isinstance(payload, Rerank) and pooling is not Pooling.RANK:
        raise InvalidField(
            "this agent ranks nothing: choose a reranker, or start the agent of one whose file does not say what it is "
            "with --pooling rank",
            param="model",
        )
    if isinstance(payload, Embed) and pooling is Pooling.RANK:
        raise InvalidField(
            "this agent ranks documents and makes no embeddings: choose an embedding model, or start the agent with "
            "another --pooling",
            param="model",
        )
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
