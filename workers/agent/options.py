"""Engine settings as llama.cpp's parameters: where the weights go, the types of the KV cache, adapters."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from paddler.engine import ModelError
from paddler.engine_settings import CacheType, EngineSettings, LoraAdapter
from paddler.logs import get_logger
from workers.agent.llama import Model, forget_problems, lib, problems

log = get_logger(__name__)

_BF16 = 30  # `GGML_TYPE_BF16` of ggml.h, which the binding does not name
_TYPES: dict[str, int] = {name: getattr(lib, f"GGML_TYPE_{name.upper()}", _BF16) for name in get_args(CacheType)}
_FLASH_ATTENTION: dict[str, int] = {
    "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_SPLIT_MODES: dict[str, int] = {
    "none": lib.LLAMA_SPLIT_MODE_NONE,
    "layer": lib.LLAMA_SPLIT_MODE_LAYER,
    "row": lib.LLAMA_SPLIT_MODE_ROW,
}


class ModelOptions:
    """Where a model's weights go. Raises `ModelError` for more GPUs than this llama.cpp can use."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        max_devices: int = lib.llama_max_devices()
        split = settings.tensor_split
        if len(split) > max_devices or settings.main_gpu >= max_devices:
            raise ModelError(
                f"tensor_split has {len(split)} shares and main_gpu is {settings.main_gpu}, but this llama.cpp knows "
                f"{max_devices} devices at most",
                kind="SettingsInvalid",
            )
        # llama.cpp reads as many as there may be devices, and keeps the pointer while it loads.
        padded = [*split, *[0.0] * (max_devices - len(split))]
        self._split = (ctypes.c_float * max_devices)(*padded) if split else None
        asks_for_gpu = settings.n_gpu_layers != 0 or bool(split) or settings.main_gpu > 0
        if asks_for_gpu and not lib.llama_supports_gpu_offload():
            log.warning("this llama.cpp is built without GPU support: all layers stay on the CPU, see docs/engine.md")

    def configure(self, params: Any) -> None:
        """Write into `llama_model_params`."""
        params.n_gpu_layers = self._settings.n_gpu_layers
        params.split_mode = _SPLIT_MODES[self._settings.split_mode]
        params.main_gpu = self._settings.main_gpu
        if self._split is not None:
            params.tensor_split = self._split


class Look:
    """For reading a file without use for it: on the CPU, and unless `is_full`, without its weights."""

    def __init__(self, *, is_full: bool) -> None:
        self._is_full = is_full

    def configure(self, params: Any) -> None:
        """Write into `llama_model_params`."""
        params.use_extra_bufts = False  # copies of the weights
        if not self._is_full:
            params.no_alloc = True
            params.load_mode = lib.LLAMA_LOAD_MODE_NONE  # what llama.cpp's own look before it fits a model uses


class ContextOptions:
    """How a context stores keys and values, and what changes its weights. Adapters are loaded here, once for all
    contexts of the model; `opening` is told of each before. Raises `ModelError`."""

    def __init__(
        self, model: Model, settings: EngineSettings, opening: Callable[[LoraAdapter], object] = lambda _: None
    ) -> None:
        self._settings = settings
        self._adapters = load_adapters(model, settings.lora_adapters, opening)

    def configure(self, params: Any) -> None:
        """Write into `llama_context_params`."""
        params.type_k = _TYPES[self._settings.cache_type_k]
        params.type_v = _TYPES[self._settings.cache_type_v]
        params.flash_attn_type = _FLASH_ATTENTION[self._settings.flash_attention]

    def attach(self, context: Any) -> None:
        """Let a context compute with the adapters, from its first token on."""
        number = len(self._adapters)
        if not number:
            return
        pointers = (lib.llama_adapter_lora_p_ctypes * number)(*self._adapters)
        scales = (ctypes.c_float * number)(*[adapter.scale for adapter in self._settings.lora_adapters])
        if lib.llama_set_adapters_lora(context, pointers, number, scales):
            first = Path(self._settings.lora_adapters[0].path)
            raise _refused("llama.cpp cannot apply the LoRA adapters: " + problems(), first)


def load_adapters(
    model: Model, adapters: Sequence[LoraAdapter], opening: Callable[[LoraAdapter], object] = lambda _: None
) -> list[Any]:
    """Their pointers, freed before the model is. Raises `ModelError`."""
    loaded: list[Any] = []
    for adapter in adapters:
        opening(adapter)
        loaded.append(_load_adapter(model, adapter))
    return loaded


def _load_adapter(model: Model, adapter: LoraAdapter) -> Any:
    path = Path(adapter.path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise _refused(f"cannot read the LoRA adapter {path}: {error.strerror}", path) from error
    if magic != b"GGUF":
        raise _refused(
            f"the LoRA adapter {path} is no GGUF file: convert it with convert_lora_to_gguf.py of llama.cpp", path
        )
    forget_problems()
    pointer = lib.llama_adapter_lora_init(model.pointer, os.fsencode(path))
    if not pointer:
        raise _refused(f"llama.cpp cannot use the LoRA adapter {path} with {model.path.name}: {problems()}", path)
    if lib.llama_adapter_get_alora_n_invocation_tokens(pointer):
        lib.llama_adapter_lora_free(pointer)
        raise _refused(
            f"the LoRA adapter {path} works from an invocation on (aLoRA), and Paddler applies it always", path
        )
    log.info("loaded a LoRA adapter", path=str(path), scale=adapter.scale)
    return pointer


def _refused(message: str, path: Path) -> ModelError:
    return ModelError(message, kind="LoraAdapterCannotBeLoaded", path=str(path))
