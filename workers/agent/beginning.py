"""From a job and its prompt to a sequence."""

from __future__ import annotations

from paddler.engine import Job
from paddler.wire.agent import Generate
from workers.agent.llama import Model
from workers.agent.prompt import PromptEncoder
from workers.agent.sequence import Sequence
from workers.agent.shifting import num_kept
from workers.agent.vision import Prompt


def begun(
    job: Job,
    payload: Generate,
    key: int,
    prompt: Prompt,
    encoder: PromptEncoder,
    model: Model,
    most: int,
    may_shift: bool,
) -> Sequence:
    """Under this sequence id, of at most so many tokens; with `may_shift` one that asks for more goes on. Raises
    `PaddlerError`."""
    tokens, kept = prompt.tokens, None
    asks_for_more = payload.max_tokens is not None and len(tokens) + payload.max_tokens > most
    if may_shift and asks_for_more and not prompt.pictures:
        kept = num_kept(encoder.num_system(payload, tokens), model.adds_bos, most)
    form, pictures = encoder.forms.of(payload, tokens), prompt.pictures
    return Sequence(job, payload, form, key, tokens, model, max_tokens=most, num_kept=kept, pictures=pictures)
