"""What of a desired state is about the engine, as `EngineSettings` has it."""

from __future__ import annotations

from typing import Any

from paddler.desired.schema import InferenceParameters, PoolingType
from paddler.engine_settings import PoolingName

POOLINGS: dict[PoolingType, PoolingName | None] = {
    "Unspecified": None,
    "None": "none",
    "Mean": "mean",
    "Cls": "cls",
    "Last": "last",
    "Rank": "rank",
}
_SAME = (
    *("n_batch", "context_size", "image_resize_to_fit", "n_gpu_layers", "model_name", "max_parked"),
    *("flash_attention", "lora_adapters", "context_shift"),
)


def engine_options(parameters: InferenceParameters) -> dict[str, Any]:
    """Arguments of `EngineSettings`; files, slots and what concerns one machine are the agent's to add."""
    return {
        **{name: getattr(parameters, name) for name in _SAME},
        "cache_type_k": parameters.k_cache_dtype.lower(),
        "cache_type_v": parameters.v_cache_dtype.lower(),
        "pooling": POOLINGS[parameters.pooling_type],
    }
