"""What the settings of an engine that generates must keep to, before anything is made of them."""

from __future__ import annotations

import structlog

from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings
from workers.agent.llama import Model, max_sequences

log = structlog.get_logger(__name__)

MAX_THREADS = 512
MAX_CONTEXT = 1 << 24
"""llama.cpp writes its cell table before it asks for memory: with 2**31 cells for half a minute, in swap."""


def check_limits(settings: EngineSettings) -> None:
    """Raises `ModelError`."""
    _check_range("context_size", settings.context_size, 1, MAX_CONTEXT)
    _check_range("threads", 1 if settings.threads is None else settings.threads, 1, MAX_THREADS)
    _check_range("slots", settings.slots, 1, min(max_sequences(), settings.n_batch, settings.context_size))


def can_save_states(model: Model, settings: EngineSettings) -> bool:
    """Whether states are to be saved: wanted, and possible. Not with memory that has no cell for every token, or gives
    cells away by itself: a range of positions has no state of its own there. It takes a sequence beside the slots'."""
    if settings.kv_ram == 0:
        return False
    if settings.max_parked == 0:
        log.warning("nothing stays when it has ended, so nothing is saved: --kv-ram needs max_parked")
        return False
    if not model.is_cuttable or model.has_window or settings.slots >= max_sequences():
        log.warning("states of this model cannot be saved: --kv-ram has no effect", model=model.path.name)
        return False
    return True


def num_parkable(model: Model, settings: EngineSettings, *, saves: bool) -> int:
    """Ended sequences that there may be beside those of the slots, and the one that saving takes."""
    return min(settings.max_parked, max_sequences() - settings.slots - saves) if model.is_cuttable else 0


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ModelError(f"{name} must be between {low} and {high}, not {value}", kind="SettingsInvalid")
