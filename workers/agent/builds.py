"""Engines from settings: with llama.cpp, and without a model."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from paddler.engine import Engine, ModelError
from paddler.engine_settings import EngineSettings
from workers.agent.loader import Build
from workers.agent.phases import Phase, Report
from workers.agent.templates import check_template

if TYPE_CHECKING:
    from workers.agent.with_tiers import KeeperFor


def build_llama(
    settings: EngineSettings,
    report: Report,
    is_suspect: bool,
    *,
    is_checked: bool = False,
    keeper_for: KeeperFor | None = None,
) -> Engine:
    """`is_checked`: `check_llama` has just been there. `keeper_for` None: no tier is behind host memory."""
    from workers.agent.probe import check

    if is_checked and not is_suspect:
        _import_binding()
    else:
        check(settings, _import_binding, is_suspect=is_suspect)
    from workers.agent.loading import load

    return load(settings, report, keeper_for)


def llama_build_of(settings: EngineSettings, *, keeper_for: KeeperFor | None = None) -> Build:
    return partial(build_llama, settings, is_checked=True, keeper_for=keeper_for)


def check_llama(settings: EngineSettings) -> None:
    """Look at everything without taking the memory it needs. Raises `ModelError`."""
    if settings.chat_template is not None:
        check_template(settings.chat_template)
    from workers.agent.probe import check

    check(settings)


def build_scripted(
    report: Report,
    _is_suspect: bool,
    *,
    slots: int,
    step_ms: float,
    load_ms: int,
    model_name: str | None,
    context_size: int,
) -> Engine:
    from paddler.testing.scripted import ScriptedEngine, pretend_to_load

    pretend_to_load(load_ms / 1000, partial(report, Phase.LOADING))
    return ScriptedEngine(
        slots=slots, step_s=step_ms / 1000, model=model_name or "scripted", context_size=context_size, is_deadly=True
    )


def scripted_build_of(settings: EngineSettings, *, step_ms: float, load_ms: int) -> Build:
    """Called like its file, as a stand-in for that model."""
    name = settings.model_name or Path(settings.model_path).stem
    own = {"step_ms": step_ms, "load_ms": load_ms, "context_size": settings.context_size}
    return partial(build_scripted, slots=settings.slots, model_name=name, **own)


def check_scripted(settings: EngineSettings) -> None:
    """As llama.cpp would see it at a first look. Raises `ModelError`."""
    if settings.chat_template is not None:
        check_template(settings.chat_template)
    with Path(settings.model_path).open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{settings.model_path} is no GGUF file")


def _import_binding() -> None:
    # It takes a second to load and only this engine needs it.
    import_module("workers.agent.llama")
