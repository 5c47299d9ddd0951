"""The tables of counters, the scripts and the processes name the same outcomes."""

from __future__ import annotations

import re
from pathlib import Path

from paddler.jobs.gateway import COUNTED_ENDS
from paddler.store.counters import COUNTERS, TALLIED
from paddler.store.results import Outcome
from paddler.store.scripts import library
from paddler.tier_stats import TIERS, TierStats, counter_name, counts_of


def test_the_table_names_what_the_scripts_count() -> None:
    _, text = library()
    counted = set(re.findall(r"\b(?:count|repaired)\('(\w+)'[,)]", text))
    # Three calls build the name: by outcome, by the rule of the choice, by one of two streams.
    counted |= set(map(str, Outcome))
    choice = text[text.index("local function cold_or_stolen(") : text.index("local function claim_for(")]
    counted |= {f"claimed_{rule}" for rule in re.findall(r"return [^\n]*, '(\w+)'", choice)}
    assert counted == set(COUNTERS)
    assert set(re.findall(r"\b(?:count|repaired)\(([^')][^)]*)\)", text)) == {
        "what",
        "what, id",
        "state",
        "stream == BUFFER and 'repaired_buffer' or 'repaired_ledger', id",
    }


def test_the_other_table_names_what_processes_count() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [path.read_text() for top in ("paddler", "workers") for path in (root / top).rglob("*.py")]
    counted = {what for text in sources for what in re.findall(r"tally\.count\([^,]+, \"(\w+)\"[,)]", text)}
    counted |= set(COUNTED_ENDS.values())
    counted |= {counter_name(tier, what) for tier in TIERS for what in counts_of(TierStats("disk"))}
    assert counted == set(TALLIED)
    assert not set(TALLIED) & set(COUNTERS)
