"""Where the time of an engine's step goes: what is called in it is timed from outside, on this one engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from workers.agent.llama_engine import LlamaEngine

DECODE, STEP = "decode", "step"
OUTSIDE = ("planning", "filling", "logits", "sampling", "detokenising", "events", "rest")
"""What a step does beside `llama_decode`: whose tokens are computed and where (scheduler, prefix cache); their batch;
the view of the logits; choosing a token from them; its text; the event that tells it and the books of the sequence; the
loop itself."""


class Parts:
    """Of an engine whose jobs have all been started; `new_step` before a step, `times` of all since."""

    def __init__(self, engine: LlamaEngine) -> None:
        self._taken: dict[str, float] = {}
        self._steps: list[dict[str, float]] = []
        for owner, name, part in (
            (engine, "step", STEP),
            (engine._kv, "look_up", "planning"),
            (engine._kv, "make_room", "planning"),
            (engine._vision, "look", "planning"),
            (engine._scheduler, "plan", "planning"),
            (engine._scheduler, "observe", "planning"),
            (engine._batches, "fill", "filling"),
            (engine._context, "decode", DECODE),
            (engine._context, "logits", "logits"),
            (engine._kv, "grow", "events"),
        ):
            self._time(owner, name, part)
        for sequence in engine._sequences.values():
            self._time(sequence._sampler, "draw", "sampling")
            self._time(sequence._sampler, "accept", "sampling")
            self._time(sequence._detokenizer, "push", "detokenising")
            self._time(sequence, "sample", "sample")

    def new_step(self) -> None:
        self._taken = dict.fromkeys((*OUTSIDE, DECODE, STEP, "sample"), 0.0)
        self._steps.append(self._taken)

    def microseconds(self) -> dict[str, float]:
        """Medians of a step's parts."""
        for taken in self._steps:
            taken["events"] += taken.pop("sample") - taken["sampling"] - taken["detokenising"]
            taken["rest"] = taken[STEP] - taken[DECODE] - sum(taken[part] for part in OUTSIDE[:-1])
        return {
            part: statistics.median(taken[part] for taken in self._steps) * 1e6 for part in (*OUTSIDE, DECODE, STEP)
        }

    def _time(self, owner: Any, name: str, part: str) -> None:
        call = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self._taken[part] += time.perf_counter() - begin

        setattr(owner, name, timed)


def table(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """In Markdown, microseconds; a row is a name and the parts of a step."""
    columns = (*OUTSIDE, "outside", DECODE)
    lines = ["| us a step | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name, parts in rows:
        told = {**parts, "outside": sum(parts[part] for part in OUTSIDE)}
        lines.append(f"| {name} | " + " | ".join(f"{told[column]:,.0f}" for column in columns) + " |")
    return "\n".join(lines)
