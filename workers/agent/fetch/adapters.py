"""LoRA adapters that a flag names by URI, beside a model that a flag names, too: fetched before the engine is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paddler.desired.adapters import is_uri, source_of
from paddler.engine import Engine
from paddler.engine_settings import EngineSettings, LoraAdapter
from workers.agent.builds import build_llama
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.resolve import files_now
from workers.agent.phases import Phase, Report

if TYPE_CHECKING:
    from workers.agent.with_tiers import KeeperFor


def build_with_adapters(
    settings: EngineSettings,
    cache: ModelCache,
    report: Report,
    is_suspect: bool,
    *,
    keeper_for: KeeperFor | None = None,
) -> Engine:
    """As `build_llama`. Raises `FetchError`, too."""
    return build_llama(fetched(settings, cache, report), report, is_suspect, keeper_for=keeper_for)


def fetched(settings: EngineSettings, cache: ModelCache, report: Report) -> EngineSettings:
    """The same with paths in place of URIs. Blocks; an exception of `report` ends it. Raises `FetchError`."""

    def tell(done: int, total: int | None, _name: str) -> None:
        report(Phase.DOWNLOADING, done / total if total else 0.0)

    adapters = [
        LoraAdapter(str(files_now(source_of(one.path), cache, tell)[0]), one.scale) if is_uri(one.path) else one
        for one in settings.lora_adapters
    ]
    return replace(settings, lora_adapters=tuple(adapters))


def local_files_of(settings: EngineSettings) -> tuple[Path, ...]:
    """What it reads beside the model, as far as that is on this machine already."""
    return tuple(Path(one) for one in settings.other_files if not is_uri(one))
