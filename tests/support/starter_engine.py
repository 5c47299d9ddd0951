"""An engine of the starter model, for a fleet in the test's own process."""

from __future__ import annotations

from typing import Any

from paddler.engine_settings import EngineSettings
from paddler.up.starter import find_starter
from workers.agent.embedding_engine import EmbeddingEngine
from workers.agent.llama_engine import LlamaEngine
from workers.agent.loading import load


def starter_engine(**settings: Any) -> LlamaEngine | EmbeddingEngine:
    """One thread, because tests run side by side."""
    given: dict[str, Any] = {"model_path": str(find_starter()), "slots": 4, "threads": 1, "context_size": 2048}
    return load(EngineSettings(**given | settings))
