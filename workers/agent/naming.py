"""What a model is called, and what text is to it."""

from __future__ import annotations

import re

from workers.agent.llama import Model

SAMPLE_TEXT = (
    "A fleet of machines serves open-weight language models. Each request waits in a queue until an agent has a free "
    'slot; then {"tokens": 42} come back one by one, as text - in order, none missing.\n'
) * 3


def bytes_per_token(model: Model) -> float:
    """Of usual text, for estimates."""
    return len(SAMPLE_TEXT) / max(len(model.tokenize(SAMPLE_TEXT)), 1)


def name_of(model: Model) -> str:
    """A name for URLs and logs from the file's, without its quantisation, else from the metadata."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", model.path.stem)
    stem = re.sub(r"[-._](?:(?:I?Q|TQ)\d\w*|B?F(?:16|32)|MXFP4\w*)$", "", stem, flags=re.IGNORECASE)
    for name in (stem, model.metadata.get("general.name", "")):
        slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
        if slug and not re.fullmatch(r"[0-9a-f]{32,}|model|ggml-model", slug):
            return slug
    return "model"
