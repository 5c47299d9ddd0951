"""A model in several files: all of them are watched, and looked into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from workers.agent.gguf_header import has_tensor
from workers.agent.shards import shards_of


def test_the_parts_of_a_split_model_are_named() -> None:
    names = ["big-00001-of-00003.gguf", "big-00002-of-00003.gguf", "big-00003-of-00003.gguf"]
    assert [str(path) for path in shards_of(Path("a", names[0]))] == [f"a/{name}" for name in names]
    assert [path.name for path in shards_of(Path(names[2]))] == names


@pytest.mark.parametrize(
    "name",
    ["model.gguf", "big-1-of-3.gguf", "big-00004-of-00003.gguf", "big-00001-of-99999.gguf", "big-00000-of-00000.gguf"],
)
def test_any_other_file_is_one(name: str) -> None:
    assert shards_of(Path(name)) == (Path(name),)


def test_a_tensor_is_found_in_any_part(tmp_path: Path) -> None:
    first, second = shards_of(tmp_path / "big-00001-of-00002.gguf")
    for path, tensor in ((first, "token_embd.weight"), (second, "cls.weight")):
        writer = GGUFWriter(path, "bert")
        writer.add_tensor(tensor, np.zeros(4, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    assert has_tensor(first, "cls.weight", "cls.output.weight")
    second.unlink()
    assert not has_tensor(first, "cls.weight")
