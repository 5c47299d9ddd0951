"""What each inference parameter of a desired state means, in words for whoever sets it: the panel's, and those of
`docs/parameters.md`, which a test holds to this. Names, defaults and types are those of `schema.py`, ranges those of
`checks.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct


class Group(StrEnum):
    """Parameters that are about one thing, in the order in which they are shown."""

    ENGINE = "Engine"
    EMBEDDINGS = "Embeddings and images"
    SAMPLING = "Sampling"
    REPETITION = "Repetition"
    DRY = "DRY"
    XTC = "XTC"
    TEMPERATURE = "Dynamic temperature"
    MIROSTAT = "Mirostat"


class Meaning(Struct, frozen=True):
    """`meaning` says what it does; `off` is the value, if any, with which it does nothing."""

    group: Group
    meaning: str
    off: str = ""


def _of(group: Group, **meanings: str | tuple[str, str]) -> dict[str, Meaning]:
    """As texts, or as pairs with what switches it off."""
    return {
        name: Meaning(group, told) if isinstance(told, str) else Meaning(group, *told)
        for name, told in meanings.items()
    }


MEANINGS: Final = {
    **_of(
        Group.ENGINE,
        context_size="Tokens of the context that all slots of an agent share, prompts and answers together. Memory for "
        "the KV cache grows with it.",
        n_gpu_layers="Layers of the model that GPUs compute; -1 is all, 0 leaves everything to the CPU.",
        split_mode="How several GPUs share the model: whole layers each, row for every matrix in parts, which needs a "
        "fast link, none for one GPU.",
        main_gpu="The GPU, counted from 0, that has all of the model with split_mode none, and the small tensors with "
        "row.",
        tensor_split="The share of each GPU, such as 3, 1 for three quarters on the first; none: by free memory. Not "
        "with split_mode none.",
        n_batch="Tokens that are decoded at once at most. Larger is faster with long prompts and takes more memory.",
        flash_attention="Whether attention is computed without its whole matrix, which saves memory: always, never, or "
        "where the machine can. A quantised cache of values needs it.",
        k_cache_dtype="How the keys of the KV cache are stored. Q8_0 takes half of the memory of F16, at a small loss.",
        v_cache_dtype="How the values of the KV cache are stored. A quantised type needs flash attention.",
        max_parked="Conversations that have ended and stay in the KV cache, so that their next turn costs less. They "
        "make room when it is needed.",
        context_shift="Whether a request whose tokens no longer fit goes on with the newer half of its context; else "
        "it ends there.",
        lora_adapters="Files in GGUF form that change the weights, each on the agents' machines or where they fetch it "
        "from, as a model is, and how much of each is added: 1 is what it was trained for.",
        model_name="The name under which agents serve the model; empty: one made from the file's name.",
    ),
    **_of(
        Group.EMBEDDINGS,
        enable_embeddings="Whether requests for embeddings are answered, beside generation; ranking is none of them.",
        embedding_batch_size="Documents of one of its batches that a request of the queue has at most.",
        pooling_type="How one vector is made of those of the tokens; Unspecified is the model's own way.",
        image_resize_to_fit="Images are made smaller until no side is longer than so many pixels.",
    ),
    **_of(
        Group.SAMPLING,
        temperature="Divides the logits: higher is more varied, lower more certain; 0 or less always takes the "
        "likeliest token.",
        top_k=("Only so many of the likeliest tokens may be chosen.", "0"),
        top_p=("Only the likeliest tokens that together reach this probability may be chosen.", "1"),
        min_p=("Only tokens at least this fraction as likely as the best may be chosen.", "0"),
        typical_p=("Only tokens whose surprise is nearest to the mean one, until they reach this probability.", "1"),
        top_n_sigma=("Only tokens within so many standard deviations of the best logit.", "-1"),
        min_keep="How many tokens top_p, min_p, typical_p and XTC leave at least.",
        ignore_eos="Whether tokens that end the output are never chosen: it then goes on to its bound.",
    ),
    **_of(
        Group.REPETITION,
        penalty_repeat=("Divides the logits of tokens that the output has already.", "1"),
        penalty_presence=("Subtracted from the logit of a token that the output has already.", "0"),
        penalty_frequency=("Subtracted once for every time that the output has the token.", "0"),
        penalty_last_n=("How many of the last tokens of the output these three look at; -1 is all.", "0"),
    ),
    **_of(
        Group.DRY,
        dry_multiplier=("Weight of the penalty for going on with a repetition, of the prompt too.", "0"),
        dry_base="The penalty grows by this factor with every token of the repetition.",
        dry_allowed_length="So long a repetition costs nothing.",
        dry_penalty_last_n=("How many tokens are looked at; -1 is the whole context.", "0"),
        dry_sequence_breakers="Texts that end a repetition.",
    ),
    **_of(
        Group.XTC,
        xtc_probability=("How often all but the least likely of the tokens above the threshold are left out.", "0"),
        xtc_threshold="That threshold; two tokens never reach one above 0.5.",
    ),
    **_of(
        Group.TEMPERATURE,
        dynatemp_range=("The temperature is up to so much lower or higher, by the entropy of the choice.", "0"),
        dynatemp_exponent="How the entropy maps to it: 1 is in proportion.",
    ),
    **_of(
        Group.MIROSTAT,
        mirostat=("1 or 2, the version: aims at a surprise, instead of what truncates under Sampling and XTC.", "0"),
        mirostat_tau="That surprise, in bits.",
        mirostat_eta="How fast it learns.",
    ),
}
"""Of each field of `InferenceParameters`, in the order in which they are shown."""
