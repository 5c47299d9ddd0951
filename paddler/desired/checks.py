"""What a desired state cannot say, found before any agent tries: each error names the field and the way out."""

from __future__ import annotations

import math
import re

from msgspec import structs

from paddler.desired.engine import engine_options
from paddler.desired.sampling import NAMES, sampling_of
from paddler.desired.schema import BalancerDesiredState, InferenceParameters
from paddler.engine_settings import MAX_GPUS, MAX_SIDE, EngineSettings, SettingError
from paddler.errors import InvalidField
from paddler.payload import SAMPLING_RANGES, check_sampling

_AT = "inference_parameters"
_INTS: dict[str, tuple[int, int]] = {
    "n_batch": (1, 2**20),
    "context_size": (64, 2**31 - 1),
    "embedding_batch_size": (1, 2**20),
    "n_gpu_layers": (-1, 2**31 - 1),
    "max_parked": (0, 4096),
    "main_gpu": (0, MAX_GPUS - 1),
}
RANGES: dict[str, tuple[float, float]] = {
    **_INTS,
    **{name: bounds for name, bounds in SAMPLING_RANGES.items() if name in NAMES},
    "image_resize_to_fit": (1, MAX_SIDE),
    "tensor_split": (0, math.inf),
}
"""Of every parameter that is a number, or numbers: the least and the most, both allowed."""
_RENAMED = {"cache_type_k": "k_cache_dtype", "cache_type_v": "v_cache_dtype", "pooling": "pooling_type"}
_QUOTED = re.compile(r"`(\w+)`")
_NAMED = re.compile(r"`([\w.]+)`")


def check_state(state: BalancerDesiredState) -> None:
    """Raises `InvalidField`."""
    if state.use_chat_template_override and state.chat_template_override is None:
        raise InvalidField(
            "`use_chat_template_override` is true, but there is no `chat_template_override`: give one as "
            '{"content": "..."}, or set it to false.',
            param="use_chat_template_override",
        )
    if len(set(state.aliases)) < len(state.aliases):
        raise InvalidField("`aliases` has a name twice; give each once.", param="aliases")
    check_parameters(state.inference_parameters)


def check_parameters(parameters: InferenceParameters) -> None:
    """Raises `InvalidField`."""
    for name, (low, high) in _INTS.items():
        value: int = getattr(parameters, name)
        if not low <= value <= high:
            raise _wrong(name, f"must be between {low} and {high}, not {value}")
    if len(parameters.tensor_split) > MAX_GPUS:
        num_shares = len(parameters.tensor_split)
        raise _wrong("tensor_split", f"is at most {MAX_GPUS} numbers, one for each GPU, not {num_shares}")
    try:
        check_sampling(sampling_of(parameters))
    except InvalidField as error:
        raise InvalidField(f"`{_AT}`: {error.message}.", param=f"{_AT}.{error.param}") from None
    try:
        EngineSettings(model_path="", slots=1, **engine_options(parameters))
    except SettingError as error:
        words = _QUOTED.sub(_in_state, str(error))
        first = _NAMED.search(words)
        raise InvalidField(f"{words}.", param=first[1] if first else _AT) from None


def _wrong(name: str, what: str) -> InvalidField:
    return InvalidField(f"`{_AT}.{name}` {what}.", param=f"{_AT}.{name}")


def _in_state(found: re.Match[str]) -> str:
    name = _RENAMED.get(found[1], found[1])
    return f"`{_AT}.{name}`" if name in _FIELDS else found[0]


_FIELDS = frozenset(field.name for field in structs.fields(InferenceParameters))
