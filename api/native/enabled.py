"""What the pool's agents can do at all: asked before a request is queued, which could only wait to be refused."""

from __future__ import annotations

from api.native.errors import NotEnabled
from paddler.jobs.gateway import DEFAULT_POOL, Gateway


async def check_generation(gateway: Gateway) -> None:
    """Raises `NotEnabled`, `QueueUnavailable`."""
    await _check(gateway, "generate", "Token generation")


async def check_embeddings(gateway: Gateway) -> None:
    """Raises as `check_generation`, also where the desired state says no."""
    name = "Embedding generation"
    if not (await gateway.desired.told(DEFAULT_POOL)).state.inference_parameters.enable_embeddings:
        raise _not_enabled(name)
    await _check(gateway, "embed", name)


async def _check(gateway: Gateway, ability: str, name: str) -> None:
    abilities = await gateway.abilities(DEFAULT_POOL)
    if abilities is not None and ability not in abilities:
        raise _not_enabled(name)


def _not_enabled(name: str) -> NotEnabled:
    return NotEnabled(f"{name} is not enabled in the inference parameters")
