"""The keeper of an engine, from what its process shares."""

from __future__ import annotations

from pathlib import Path

from paddler.clock import Clock
from paddler.engine_settings import EngineSettings
from workers.agent.llama import Model
from workers.agent.tiers.contract import Keeper
from workers.agent.tiers.fingerprint import Fingerprint
from workers.agent.tiers.keeper import StateKeeper
from workers.agent.tiers.packing import Packer
from workers.agent.tiers.sharing import Sharing


def open_keeper(
    sharing: Sharing, cache: Path, clock: Clock, model: Model, settings: EngineSettings, context_size: int
) -> Keeper:
    """For an engine of this model and settings, with a context of so many tokens. `cache` is the folder of downloaded
    models. Other agents get what this keeper has from now on."""
    fingerprint = Fingerprint.of(model, settings, context_size=context_size, cache=cache)
    packer = Packer(sharing.settings.key or sharing.secret)
    keeper = StateKeeper(sharing.tiers(), packer, sharing.secret, lambda: fingerprint.value, clock)
    sharing.lends(keeper.lend)
    return keeper
