"""The keys of rolling over an agent from one model to another (`paddler.store.scripts_turns`)."""

from __future__ import annotations

from paddler.store.keys import PoolKeys


def turns_key(keys: PoolKeys) -> str:
    """hash · holder of a turn -> `<lease expiry, ms> <slots> <agent id>`: who is changing its model now · turn and
    end_turn write, turn reads · TTL the longest lease among them · a field an agent that changes."""
    return f"{keys.base}:turns"


def losses_key(keys: PoolKeys) -> str:
    """hash · `of:<holder>` -> `<lease expiry, ms> <version of the desired state>`: who is changing to what; `version`,
    `count`, `until`: to which version holders were lost in their turns, how many, and until when (ms) nobody is given a
    turn for it · turn and end_turn write and read, agents read · TTL the longest pause · a field an agent that
    changes."""
    return f"{keys.base}:turns:lost"


def question_key(keys: PoolKeys, question_id: str) -> str:
    """list · the answer of an agent to one question of a balancer (`wire.agent.Ask`), one element · the agent pushes,
    the balancer that asked pops · TTL `ANSWER_S` of `paddler.jobs.asking`."""
    return f"{keys.base}:answer:{question_id}"
