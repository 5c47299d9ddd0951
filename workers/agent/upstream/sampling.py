"""How a request wants tokens chosen, in the words of a server. What it does not know is refused, never dropped."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from paddler.errors import InvalidField
from paddler.wire.agent import Sampling
from workers.agent.upstream.dialects import Dialect

_ASKED_AS = {
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
    "penalty_frequency": "frequency_penalty",
    "penalty_presence": "presence_penalty",
}
"""What clients call a field that the wire calls otherwise."""


def sampling_fields(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """What is at the wire's default is left to the server, unless the dialect says otherwise: that is what nobody has
    asked for. Raises `InvalidField`."""
    fields: dict[str, Any] = {}
    for field in structs.fields(Sampling):
        value = getattr(sampling, field.name)
        if field.name == "logit_bias":
            continue
        known = dialect.sampling.get(field.name)
        if known is not None:
            if field.name in dialect.always or value != field.default:
                fields[known] = value
        elif value != field.default:
            name = _ASKED_AS.get(field.name, field.name)
            raise InvalidField(
                f"`{name}`: the server behind this model ({dialect.name}) does not know it: leave it out.", param=name
            )
    if sampling.logit_bias:
        fields["logit_bias"] = _biases(sampling.logit_bias, dialect)
    return fields


def _biases(biases: tuple[tuple[int | str, float], ...], dialect: Dialect) -> Any:
    if dialect.biases == "any":
        return [list(one) for one in biases]
    if dialect.biases == "none":
        raise InvalidField(f"`logit_bias`: {dialect.name} does not know it: leave it out.", param="logit_bias")
    if not all(isinstance(token, int) for token, _ in biases):
        raise InvalidField(
            f"`logit_bias`: {dialect.name} knows tokens by their ids alone, not by their text.", param="logit_bias"
        )
    return {str(token): bias for token, bias in biases}
