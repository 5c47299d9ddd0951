"""What an agent tells of itself when a balancer asks on its control channel (`wire.agent.Ask`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import msgspec

from paddler.engine import Saved
from paddler.jobs.enquiry import answer
from paddler.store.pipe import Value
from paddler.store.scripts import PoolScripts
from paddler.tier_stats import TierStats, encode_tiers
from paddler.wire.agent import Ask


async def tell(pool: PoolScripts, ask: Ask, *, metadata: Mapping[str, str] | None, override: str | None) -> None:
    """Answer in the JSON of Paddler 4; `null` for what there is none of. Raises what Redis raises."""
    match ask.what:
        case "model_metadata":
            told = None if metadata is None else {"metadata": metadata}
        case "chat_template_override":
            told = None if override is None else {"content": override}
        case _:
            assert_never(ask.what)
    await answer(pool, ask.question_id, msgspec.json.encode(told))


def saved_fields(saved: Saved | None, tiers: tuple[TierStats, ...]) -> Mapping[str, Value]:
    """Of an agent's hash; none where nothing is saved."""
    told: Mapping[str, Value] = {"tiers": encode_tiers(tiers)} if tiers else {}
    if saved is None:
        return told
    return {
        **told,
        "saved_bytes": saved.num_bytes,
        "saved_tokens": saved.num_tokens,
        "restored_tokens": saved.num_restored,
    }
