"""What the fields of `counters` count: `COUNTERS` is raised by the script in which the outcome happens, `TALLIED` by
the process that sees it (`tally.py`). `tests/redis/test_counters.py` compares both with the Lua and the Python."""

from __future__ import annotations

from paddler.tier_stats import TIER_COUNTS, TIERS, counter_name

COUNTERS = {
    # admission
    "accepted": "requests entered into the queue",
    "buffered": "of these, requests that had to wait, as no slot was free for them",
    "duplicate": "requests answered with an earlier one of the same Idempotency-Key",
    "mismatch": "requests refused: their Idempotency-Key was used for another request",
    "full": "requests refused: as many wait as --max-buffered-requests or, on their side, --max-batch-requests allows",
    "tenant_full": "requests refused: their tenant has its share of their side waiting",
    "slow": "requests refused: the estimated wait is longer than --max-estimated-wait",
    # choice
    "claimed_own": "tickets given to an agent that holds the beginning of the prompt",
    "claimed_cold": "tickets given that no live agent holds anything of",
    "claimed_stolen": "tickets taken from a busy holder after the prefill time that waiting would have saved",
    "claimed_oldest": "tickets given for their age, on an agent's every eighth claim",
    "claimed_reserved": "tickets of suspects (a fruitless death), given to the empty lane that was kept for them",
    "promoted": "waiting requests moved up a class for their age",
    # ends
    "done": "requests that ended as asked",
    "failed": "requests that ended with an error",
    "cancelled": "requests that were cancelled",
    "expired": "failed: no slot became free before the start deadline",
    "orphaned": "cancelled: no balancer followed them for the grace time",
    "dead": "failed: they lost as many agents as are tried",
    # hand-over
    "handed_over": "running requests returned to the queue by an agent that left or was lost",
    "preempted": "running requests returned to the queue by an agent short of room",
    "deaths": "running requests that lost their agent",
    "reaped": "agents lost",
    "fenced": "calls refused: the request has another agent by now, or has ended",
    "short": "calls that found less in a journal than their agent had written: Redis forgot",
    "long": "calls that found more in a journal than their agent knew",
    "repaired": "journals to which a balancer wrote back what Redis had forgotten",
    # dead letters
    "requeued": "dead letters given a new life",
    "dropped": "dead letters forgotten on demand",
    # audit: each one is a fault, of Paddler or of whoever wrote to Redis by hand
    "repaired_ledger": "entries of `demand` added for an unfinished request or removed for an ended one",
    "repaired_buffer": "waiting requests entered where they were missing, others removed from where they stood",
    "repaired_lane": "tickets removed from a lane whose request was elsewhere or gone",
    "repaired_lost": "requests put back that were neither in the buffer nor in the lane they should be in",
    "repaired_backlog": "corrections of `backlog`",
    "repaired_free": "corrections of an agent's free slots",
    "repaired_solo": "lanes reserved for a request that was not in them",
    "repaired_agent": "agents forgotten of which only a part was left",
    "repaired_ttl": "ended requests given a TTL, unfinished ones freed of theirs",
}

TALLIED = {
    "item_timeouts": "streams given up: their running request was silent for --inference-item-timeout",
    "request_lost": "streams that ended because Redis had forgotten their request or a part of it",
    "unavailable": "requests and streams answered with 503 queue_unavailable",
    "mended_gaps": "times a stream was continued from its journal, as messages were lost or its client was slow",
    "resumed": "streams that went on behind a Last-Event-ID",
    "resubmitted": "requests submitted again because Redis had forgotten them",
    "cache_hit": "requests that ended with nine tenths of their prompt, or more, from the KV cache",
    "cache_partial": "requests that ended with a smaller part of their prompt from the KV cache",
    "cache_miss": "requests that ended with nothing from the KV cache",
    "left": "agents that left in order",
    "prompt_tokens": "tokens of the prompts of requests that have ended on an agent",
    "cached_tokens": "of these, tokens that were in the KV cache",
    "output_tokens": "tokens that they have generated",
    "embedded_tokens": "tokens of what was embedded or ranked",
    **{counter_name(tier, what): f"{tier}: {said}" for tier in TIERS for what, said in TIER_COUNTS.items()},
}
