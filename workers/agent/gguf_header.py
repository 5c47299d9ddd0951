"""Which tensors a GGUF file has; llama.cpp tells of a loaded model only what it makes of them."""

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
    return ctypes.CFUNCTYPE(result, *arguments)((name, lib.llama_cpp._lib))
