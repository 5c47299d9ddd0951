"""The flags of an agent that become `EngineSettings`; `paddler up` has the same and passes them on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import rich_click as click

from paddler.desired.adapters import of_flags
from paddler.engine_settings import (
    ALL_LAYERS,
    MAX_SIDE,
    CacheType,
    EngineSettings,
    FlashAttention,
    LoraAdapter,
    PoolingName,
    SettingError,
    SplitMode,
)
from paddler.settings import option

_F = TypeVar("_F", bound=Callable[..., Any])


class _Layers(click.ParamType[int, str | int]):
    name = "number|all"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value in ("all", ALL_LAYERS, str(ALL_LAYERS)):
            return ALL_LAYERS
        if not str(value).isdecimal():
            self.fail(f"{value!r} is neither a number of layers nor all.", param, ctx)
        return int(value)


class _Shares(click.ParamType[tuple[float, ...], str | tuple[float, ...]]):
    name = "share,..."

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.replace("/", ",").split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers, one for each GPU, such as 3,1.", param, ctx)


class _Adapters(click.ParamType[tuple[LoraAdapter, ...], str | tuple[LoraAdapter, ...]]):
    name = "path|uri[:scale],..."

    def convert(
        self, value: str | tuple[LoraAdapter, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[LoraAdapter, ...]:
        if isinstance(value, tuple):
            return value
        if not all(part.strip() for part in value.split(",")):
            self.fail(f"{value!r} names a file of no name; files are parted by a comma each.", param, ctx)
        found = tuple(parse_adapter(part.strip()) for part in value.split(","))
        try:
            of_flags(found)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        return found


def parse_adapter(text: str) -> LoraAdapter:
    """`path` or `path:scale`, or a URI in place of a path; what follows the last colon is a scale if it is a number."""
    path, _, scale = text.rpartition(":")
    try:
        return LoraAdapter(path, float(scale)) if path else LoraAdapter(text)
    except ValueError:
        return LoraAdapter(text)


class _Size(click.ParamType[int, str | int]):
    name = "bytes|size"
    _units: ClassVar = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is no size: give bytes, or a number such as 512MiB or 2GiB.", param, ctx)
        return int(float(found[1]) * self._units[found[2]])


LAYERS, SHARES, ADAPTERS, SIZE = _Layers(), _Shares(), _Adapters(), _Size()
_CACHE = click.Choice(get_args(CacheType), case_sensitive=False)

_OPTIONS = (
    option("--threads", type=click.IntRange(1, 1024), help="CPU threads of an agent; by default one a core."),
    option(
        "--n-batch", type=click.IntRange(1, 1 << 20), help="Tokens that one step decodes, at most; by default 2048."
    ),
    option("--cache-type-k", type=_CACHE, help="How keys are kept in the KV cache; by default f16; q8_0 takes half."),
    option("--cache-type-v", type=_CACHE, help="How values are; a quantised type needs flash attention."),
    option("--flash-attention", type=click.Choice(get_args(FlashAttention)), help="By default auto: where it is."),
    option("--n-gpu-layers", type=LAYERS, help="Layers on the GPU, by default 0; all or -1 is all of them."),
    option("--split-mode", type=click.Choice(get_args(SplitMode)), help="How GPUs share the model; by default layer."),
    option("--main-gpu", type=click.IntRange(min=0), help="The GPU that has all of it with --split-mode none."),
    option("--tensor-split", type=SHARES, help="The share of each GPU, such as 3,1; by default by their memory."),
    option(
        "--lora-adapters",
        type=ADAPTERS,
        help="LoRA adapters (GGUF) that change the weights, each a path, or a URI as that of a model, with its scale.",
    ),
    option(
        "--pooling",
        type=click.Choice(get_args(PoolingName)),
        help="How an input's tokens become one embedding; by default as the model says, else their mean.",
    ),
    option(
        "--multimodal-projection",
        type=click.Path(),
        help="The GGUF file, often called mmproj, with which the model reads images; without it they are refused.",
    ),
    option(
        "--image-resize-to-fit",
        type=click.IntRange(1, MAX_SIDE),
        help="Images are made smaller until no side is longer than so many pixels; by default 1024.",
    ),
    option("--context-shift", is_flag=True, default=None, help="Go on with the newer half of a context that is full."),
    option("--kv-ram", type=SIZE, help="Host memory for what leaves the KV cache, such as 2GiB; by default none."),
)
NAMES = (
    "threads",
    "n_batch",
    "cache_type_k",
    "cache_type_v",
    "flash_attention",
    "n_gpu_layers",
    "split_mode",
    "main_gpu",
    "tensor_split",
    "lora_adapters",
    "pooling",
    "multimodal_projection",
    "image_resize_to_fit",
    "context_shift",
    "kv_ram",
)


def engine_options(function: _F) -> _F:
    """Adds the arguments `NAMES`, None where the default of `EngineSettings` holds."""
    for one in reversed(_OPTIONS):
        function = one(function)
    return function


def engine_settings(*, model: Path, values: dict[str, Any], **others: Any) -> EngineSettings:
    """`values` are those of `engine_options`. Raises `click.UsageError` naming the flag."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return EngineSettings(model_path=str(model), **others, **given)
    except SettingError as error:
        raise click.UsageError(in_flags(str(error)) + ".") from None


def in_flags(message: str) -> str:
    """What `SettingError` says of fields, of flags."""
    for name in NAMES:
        message = message.replace(f"`{name}`", f"--{name.replace('_', '-')}")
    return message


def flag_value(value: object) -> str:
    """A value as its flag takes it."""
    if isinstance(value, tuple):
        parts: tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]
        return ",".join(map(flag_value, parts))
    if isinstance(value, LoraAdapter):
        return f"{value.path}:{value.scale:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
