"""llama-cpp-python's declarations of llama.cpp, without the engine, chat formats and caches that its package brings.

Every agent would wait for those at its start, and so would each look at a model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

PACKAGE = "llama_cpp"


def declarations(name: str) -> Any:
    """The module of this name of the package, whose own `__init__` is not run: who imports the package itself, later,
    gets all of it. Annotations there name C types where ctypes returns Python's, so they are not used. Raises
    `ModuleNotFoundError`."""
    if PACKAGE in sys.modules:
        return import_module(f"{PACKAGE}.{name}")
    spec = find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    sys.modules[PACKAGE] = module_from_spec(spec)
    try:
        return import_module(f"{PACKAGE}.{name}")
    finally:
        del sys.modules[PACKAGE]
