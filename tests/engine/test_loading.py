"""From settings to an engine: what goes wrong on the way is a `ModelError` of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from minilm import minilm_path

from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings
from workers.agent.llama import lib
from workers.agent.loading import load


@pytest.mark.parametrize("code", [-1, -2, -3])
@pytest.mark.parametrize("kind", ["chat model", "encoder"])
def test_a_failing_warm_up_is_an_issue_that_memory_may_mend(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
) -> None:
    path = model_path if kind == "chat model" else minilm_path()

    def decode(*_: object) -> int:
        return code

    monkeypatch.setattr(lib, "llama_decode", decode)
    with pytest.raises(ModelError, match=f"llama_decode failed with code {code}") as told:
        load(EngineSettings(model_path=str(path), slots=1, context_size=256, threads=1))
    assert told.value.kind == "SlotCannotStart"
