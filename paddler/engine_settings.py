"""What an engine is made of: the fields of a desired state that reach llama.cpp.

Knows neither model nor binding, so that whoever takes a desired state can check it.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import msgspec
from msgspec import Struct, structs

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
"""Of one side of the KV cache, by llama.cpp's names."""
FlashAttention = Literal["auto", "on", "off"]
PoolingName = Literal["none", "mean", "cls", "last", "rank"]
SplitMode = Literal["none", "layer", "row"]

QUANTISED = frozenset({"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"})
ALL_LAYERS = -1
MAX_SCALE = 100.0
MAX_SIDE = 16384
MAX_GPUS = 16
"""That one llama.cpp knows; a desired state cannot say more, and an agent refuses what its own build cannot use."""


class SettingError(ValueError):
    """A setting has a value it cannot have. Names of fields stand in backticks."""


class LoraAdapter(Struct, frozen=True, forbid_unknown_fields=True):
    """A GGUF with low-rank changes to the weights, and how much of them is added. Of a flag `path` may be a URI, until
    the file is there (`paddler/desired/adapters.py`)."""

    path: str
    scale: float = 1.0


class EngineSettings(Struct, frozen=True, kw_only=True):
    """`context_size` tokens are shared by `slots` and by up to `max_parked` ended sequences, which make room when it is
    needed. `threads` None means one per usable core. `model_name` None means a name made from the file's.

    `cache_type_k` and `cache_type_v` (Paddler 4.1's `k_cache_dtype` and `v_cache_dtype`, which is what a desired state
    calls them) are read in any case. `n_gpu_layers` is -1 for all. `tensor_split` is the share of each GPU, of any sum;
    with `split_mode` `none` all is on `main_gpu`. `lora_adapters` change the weights for all requests alike. With
    `context_shift` a request that asks for more tokens than fit goes on with the newer half of its context.

    `kv_ram` bytes of host memory take what leaves the KV cache and give it back to whom it serves; 0: it is forgotten.

    `multimodal_projection` is the file of the projection for images; None: they are refused. Images are made smaller
    until no side is longer than `image_resize_to_fit` pixels.

    `chat_template` stands in for the model's own; None: it does not.

    `docs/engine.md` says when to use what. Raises `SettingError`, which msgspec turns into its `ValidationError`."""

    model_path: str
    slots: int
    context_size: int = 8192
    n_batch: int = 2048
    max_parked: int = 64
    lone_step_s: float = 1.0
    """A step for a prompt that is alone may take so long; less than the quarter of a lease, after which progress renews
    it."""
    threads: int | None = None
    n_gpu_layers: int = 0
    model_name: str | None = None
    cache_type_k: str = msgspec.field(default="f16", name="k_cache_dtype")
    cache_type_v: str = msgspec.field(default="f16", name="v_cache_dtype")
    flash_attention: FlashAttention = "auto"
    split_mode: SplitMode = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    lora_adapters: tuple[LoraAdapter, ...] = ()
    pooling: PoolingName | None = None
    """None is the model's own, else the mean."""
    context_shift: bool = False
    kv_ram: int = 0
    multimodal_projection: str | None = None
    image_resize_to_fit: int = 1024
    chat_template: str | None = None

    def __post_init__(self) -> None:
        for name in ("cache_type_k", "cache_type_v"):
            value: str = getattr(self, name).lower()
            _choice(name, value, get_args(CacheType))
            structs.force_setattr(self, name, value)
        _choice("flash_attention", self.flash_attention, get_args(FlashAttention))
        _choice("split_mode", self.split_mode, get_args(SplitMode))
        if self.cache_type_v in QUANTISED and self.flash_attention == "off":
            raise SettingError(
                f"`cache_type_v` {self.cache_type_v} is quantised, which llama.cpp can only read with flash attention: "
                "leave `flash_attention` at auto, or choose f16, bf16 or f32"
            )
        if self.n_gpu_layers < ALL_LAYERS:
            raise SettingError(f"`n_gpu_layers` is a number of layers, or -1 for all, not {self.n_gpu_layers}")
        if self.kv_ram < 0:
            raise SettingError(f"`kv_ram` is a number of bytes, 0 for none, not {self.kv_ram}")
        if self.main_gpu < 0:
            raise SettingError(f"`main_gpu` is the number of a GPU, counted from 0, not {self.main_gpu}")
        if not 1 <= self.image_resize_to_fit <= MAX_SIDE:
            raise SettingError(f"`image_resize_to_fit` is 1 to {MAX_SIDE} pixels, not {self.image_resize_to_fit}")
        self._check_split()
        self._check_adapters()

    @property
    def other_files(self) -> tuple[str, ...]:
        """What is read beside the model."""
        projection = () if self.multimodal_projection is None else (self.multimodal_projection,)
        return (*(adapter.path for adapter in self.lora_adapters), *projection)

    def _check_split(self) -> None:
        split = self.tensor_split
        if not split:
            return
        if not all(math.isfinite(share) and share >= 0 for share in split) or sum(split) <= 0:
            raise SettingError(
                f"`tensor_split` is the share of each GPU, such as 3,1 for three quarters on the first: numbers from 0 "
                f"on, not all 0, but it is {','.join(f'{share:g}' for share in split)}"
            )
        if self.split_mode == "none":
            raise SettingError(
                "`tensor_split` says how GPUs share the model and `split_mode` none that one has all of it: give one"
            )

    def _check_adapters(self) -> None:
        for adapter in self.lora_adapters:
            if not math.isfinite(adapter.scale) or abs(adapter.scale) > MAX_SCALE:
                raise SettingError(
                    f"`lora_adapters`: the scale of {adapter.path} is {adapter.scale:g}, but must be between "
                    f"{-MAX_SCALE:g} and {MAX_SCALE:g}; 1 is what it was trained for"
                )
        paths = [adapter.path for adapter in self.lora_adapters]
        if len(set(paths)) < len(paths):
            raise SettingError("`lora_adapters` names a file twice: give it once, with the sum of the scales")


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingError(f"`{name}` is one of {', '.join(allowed)}, not {value!r}")
