"""What of a desired state is about the engine, as `EngineSettings` has it."""

from __future__ import annotations

from typing import Any

from paddler.desired.adapters import of_state, text_of
from paddler.desired.schema import InferenceParameters, PoolingType
from paddler.engine_settings import LoraAdapter, PoolingName

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
    *("flash_attention", "context_shift", "split_mode", "main_gpu", "tensor_split"),
)


def engine_options(parameters: InferenceParameters) -> dict[str, Any]:
    """Arguments of `EngineSettings`; files, slots and what concerns one machine are the agent's to add. Adapters are
    told as they are wanted, until they are there."""
    return {
        **{name: getattr(parameters, name) for name in _SAME},
        "cache_type_k": parameters.k_cache_dtype.lower(),
        "cache_type_v": parameters.v_cache_dtype.lower(),
        "lora_adapters": tuple(
            LoraAdapter(text_of(one.source), one.scale) for one in of_state(parameters.lora_adapters)
        ),
        "pooling": POOLINGS[parameters.pooling_type],
    }
