"""What the header of a GGUF file says: which tensors it has, and all of its metadata. llama.cpp tells of a loaded model
only what it makes of the tensors, and leaves lists out."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.agent.llama import lib
from workers.agent.shards import shards_of


class _Params(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def has_tensor(path: Path, *names: str) -> bool:
    """Whether a model has one of these, in any of its files; reads headers only. False for what cannot be read."""
    return any(_has_tensor(shard, names) for shard in shards_of(path))


def _has_tensor(path: Path, names: Sequence[str]) -> bool:
    open_header = _function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _Params)
    find = _function("gguf_find_tensor", ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p)
    header = open_header(os.fsencode(path), _Params(True, None))
    if not header:
        return False
    has_any = any(find(header, name.encode()) >= 0 for name in names)
    _function("gguf_free", None, ctypes.c_void_p)(header)
    return has_any


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """Of the libraries below llama.cpp, which the binding does not declare."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, lib._lib))


def metadata_of(path: Path) -> dict[str, str]:
    """What the header of a model says, as text; empty for what cannot be read. Of a list its first items and how many
    there are: vocabularies are lists, of a megabyte and more."""
    open_header = _function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _Params)
    header = open_header(os.fsencode(path), _Params(True, None))
    if not header:
        return {}
    try:
        number = _function("gguf_get_n_kv", ctypes.c_int64, ctypes.c_void_p)(header)
        name = _function("gguf_get_key", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
        return {name(header, at).decode("utf-8", "replace"): _text(header, at) for at in range(number)}
    finally:
        _function("gguf_free", None, ctypes.c_void_p)(header)


_SCALARS: dict[int, Any] = {
    0: ctypes.c_uint8,
    1: ctypes.c_int8,
    2: ctypes.c_uint16,
    3: ctypes.c_int16,
    4: ctypes.c_uint32,
    5: ctypes.c_int32,
    6: ctypes.c_float,
    7: ctypes.c_bool,
    10: ctypes.c_uint64,
    11: ctypes.c_int64,
    12: ctypes.c_double,
}
"""By `gguf_type`."""
_STRING, _ARRAY = 8, 9
SHOWN = 8
"""Items of a list."""


def _text(header: int, at: int) -> str:
    kind = _function("gguf_get_kv_type", ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)(header, at)
    if kind == _STRING:
        read = _function("gguf_get_val_str", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
        return read(header, at).decode("utf-8", "replace")
    if kind == _ARRAY:
        return _list(header, at)
    read = _function("gguf_get_val_data", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return _shown(_SCALARS[kind].from_address(read(header, at)).value)


def _list(header: int, at: int) -> str:
    kind = _function("gguf_get_arr_type", ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)(header, at)
    number = _function("gguf_get_arr_n", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int64)(header, at)
    items: list[str]
    if kind == _STRING:
        read = _function("gguf_get_arr_str", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t)
        items = [repr(read(header, at, place).decode("utf-8", "replace")) for place in range(min(number, SHOWN))]
    elif kind in _SCALARS:
        start = _function("gguf_get_arr_data", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(header, at)
        items = [_shown(value) for value in (_SCALARS[kind] * min(number, SHOWN)).from_address(start or 0)]
    else:
        items = []
    more = f", ... {number} in all" if number > len(items) else ""
    return f"[{', '.join(items)}{more}]"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
