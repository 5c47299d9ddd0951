"""The keeper of an engine, from what its process shares."""

from __future__ import annotations

from pathlib import Path

from paddler.clock import Clock
from paddler.engine_settings import EngineSettings
from workers.agent.llama import Model
from workers.agent.tiers.contract import Keeper
from workers.agent.tiers.fingerprint import Fingerprint, seen_before
from workers.agent.tiers.keeper import StateKeeper
from workers.agent.tiers.packing import Packer
from workers.agent.tiers.sharing import Sharing
from workers.agent.with_tiers import OpenKeeper


def keeper_for(sharing: Sharing, cache: Path, clock: Clock, settings: EngineSettings) -> OpenKeeper:
    """Before the model of these settings is loaded: what opens the keeper of its engine. `cache` is the folder of
    downloaded models. Other agents get what that keeper has from when it is opened."""
    before = seen_before(settings)

    def open_keeper(model: Model, settings: EngineSettings, context_size: int) -> Keeper:
        fingerprint = Fingerprint.of(model, settings, context_size=context_size, cache=cache, before=before)
        packer = Packer(sharing.settings.key or sharing.secret)
        keeper = StateKeeper(sharing.tiers(), packer, sharing.secret, lambda: fingerprint.value, clock)
        sharing.lends(keeper.lend)
        return keeper

    return open_keeper
