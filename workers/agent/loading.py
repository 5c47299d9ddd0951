"""From settings to an engine."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from paddler.clock import SystemClock
from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings
from paddler.logs import get_logger
from workers.agent.context import DecodeError
from workers.agent.embedding_engine import EmbeddingEngine, make_embedding_engine
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.options import ModelOptions
from workers.agent.phases import Phase, Report, ignore
from workers.agent.pooling import is_embedding_model
from workers.agent.with_tiers import KeeperFor

log = get_logger(__name__)


def load(
    settings: EngineSettings, report: Report = ignore, keeper_for: KeeperFor | None = None
) -> LlamaEngine | EmbeddingEngine:
    """Load the model and warm it up; takes seconds to minutes. `report` gets the phase and 0..1; an exception from it
    stops the loading. `keeper_for` None: no tier is behind host memory. Raises `ModelError`."""
    path = Path(settings.model_path)
    open_keeper = None if keeper_for is None else keeper_for(settings)
    report(Phase.LOADING, 0.0)
    model = Model(path, options=ModelOptions(settings), on_progress=partial(report, Phase.LOADING))
    report(Phase.WARMING_UP, 0.0)
    make = make_embedding_engine
    if not is_embedding_model(model):
        make = partial(LlamaEngine, open_keeper=open_keeper)
    elif open_keeper is not None:
        log.warning("a model that only embeds has no states to keep or share: the flags about them have no effect")
    try:
        return make(model, settings, SystemClock())
    except DecodeError as error:
        raise ModelError(f"{path} is loaded, but computes nothing here: {error}", kind="SlotCannotStart") from error
