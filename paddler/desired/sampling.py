"""Sampling of requests: what they ask for, and the pool's defaults for the rest.

A route reads a request into `AskedSampling`; who submits it puts in what the pool has. So a value that is asked for and
happens to be the wire's default is told from one that nobody has asked for.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from paddler.desired.schema import InferenceParameters
from paddler.wire.agent import ApplyTemplate, CountTokens, Generate, Payload, Sampling

_OF_A_REQUEST = ("seed", "logit_bias")
NAMES = tuple(field.name for field in structs.fields(Sampling) if field.name not in _OF_A_REQUEST)
"""What a pool has defaults for."""


class AskedSampling(Sampling, frozen=True, kw_only=True):
    """Of a request that has said `given`; all else is for `with_defaults` to put in. Never sent."""

    given: frozenset[str] = frozenset()


def asked_sampling(seed: int, given: dict[str, Any]) -> AskedSampling:
    """`given` is what the request says: of fields that are None it says nothing."""
    said = {name: value for name, value in given.items() if value is not None}
    return AskedSampling(seed=seed, given=frozenset(said), **said)


def sampling_of(parameters: InferenceParameters) -> Sampling:
    """The pool's defaults."""
    given: dict[str, Any] = {name: getattr(parameters, name) for name in NAMES}
    return Sampling(**given)


def with_defaults(sampling: Sampling, defaults: Sampling) -> Sampling:
    """What a request asks for wins."""
    if not isinstance(sampling, AskedSampling):
        return sampling
    said: dict[str, Any] = {name: getattr(sampling, name) for name in sampling.given}
    return structs.replace(defaults, seed=sampling.seed, **said)


def filled(payload: Payload, defaults: Sampling) -> Payload:
    """What goes into the queue."""
    match payload:
        case Generate():
            return _filled(payload, defaults)
        case ApplyTemplate(request=request) | CountTokens(request=request):
            return structs.replace(payload, request=_filled(request, defaults))
        case _:
            return payload


def _filled(request: Generate, defaults: Sampling) -> Generate:
    return structs.replace(request, sampling=with_defaults(request.sampling, defaults))
