"""A bad GGUF costs a child process, never the agent."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_models import (
    adapter_that_kills,
    cut,
    projection_that_kills,
    that_kills_in_a_decode,
    that_kills_the_reader,
    with_field,
)
from lora import write_adapter
from structlog.testing import capture_logs
from tiny_vision import write_projector

from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings, LoraAdapter
from workers.agent.probe import check

pytestmark = pytest.mark.timeout(120)

SHORT_TARGET = "blk.3.ffn_down.weight"
"""Of the last layer of the short model."""


def settings(path: Path) -> EngineSettings:
    return EngineSettings(model_path=str(path), slots=2, context_size=512)


def seeing(path: Path, projection: Path) -> EngineSettings:
    return EngineSettings(model_path=str(path), slots=2, context_size=512, multimodal_projection=str(projection))


def test_a_sound_model_passes(model_path: Path) -> None:
    called: list[bool] = []
    check(settings(model_path), lambda: called.append(True))
    assert called == [True]


def test_a_sound_model_passes_in_full(model_path: Path) -> None:
    check(settings(model_path), is_suspect=True)


def test_one_that_kills_its_reader_is_an_error_with_its_cause(model_path: Path, tmp_path: Path) -> None:
    bad = that_kills_the_reader(model_path, tmp_path / "bad.gguf")
    with pytest.raises(ModelError, match=r"does not survive .*bad\.gguf: SIGABRT \([\w.-]+:\d+: GGML_ASSERT") as told:
        check(settings(bad))
    assert told.value.kind == "ModelCannotBeLoaded"


def test_one_that_kills_in_a_decode_is_found_in_full(model_path: Path, tmp_path: Path) -> None:
    bad = that_kills_in_a_decode(model_path, tmp_path / "bad.gguf")
    check(settings(bad))
    with pytest.raises(ModelError, match=r"SIGABRT .*GGML_ASSERT"):
        check(settings(bad), is_suspect=True)


@pytest.mark.parametrize("size", [4, 23, 100, 4096, 1_700_000, 1_785_664, 50_000_000])
def test_a_cut_file_is_refused(whole_path: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(ModelError, match=r"cannot load .*cut\.gguf"):
        check(settings(cut(whole_path, tmp_path / "cut.gguf", size)))


@pytest.mark.parametrize(
    ("place", "value"), [(8, 2**62), (8, 2**64 - 1), (16, 2**63), (16, 2**64 - 1)], ids=["t62", "t64", "k63", "k64"]
)
def test_absurd_numbers_of_tensors_and_fields_are_refused(
    model_path: Path, tmp_path: Path, place: int, value: int
) -> None:
    bad = cut(model_path, tmp_path / "bad.gguf", 2_000_000)
    with bad.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<Q", value))
    with pytest.raises(ModelError, match=r"cannot load|does not survive"):
        check(settings(bad))


@pytest.mark.parametrize("field", ["attention.head_count", "embedding_length", "feed_forward_length"])
@pytest.mark.parametrize("value", [0, 2**31 - 1])
def test_absurd_shapes_are_refused(model_path: Path, tmp_path: Path, field: str, value: int) -> None:
    with pytest.raises(ModelError):
        check(settings(with_field(model_path, tmp_path / "bad.gguf", f"llama.{field}", value)))


def test_a_missing_file_has_its_own_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the model") as told:
        check(settings(tmp_path / "none.gguf"))
    assert told.value.kind == "ModelFileDoesNotExist"


def test_an_adapter_is_looked_at_too(model_path: Path) -> None:
    wanted = EngineSettings(model_path=str(model_path), slots=1, lora_adapters=(LoraAdapter(str(model_path)),))
    with pytest.raises(ModelError, match=r"general\.type") as told:
        check(wanted)
    assert (told.value.kind, told.value.path) == ("LoraAdapterCannotBeLoaded", str(model_path))


def test_an_adapter_that_kills_its_reader_is_named(model_path: Path, tmp_path: Path) -> None:
    bad = adapter_that_kills(write_adapter(tmp_path / "good.gguf", target=SHORT_TARGET), tmp_path / "bad.gguf")
    wanted = EngineSettings(model_path=str(model_path), slots=1, lora_adapters=(LoraAdapter(str(bad)),))
    with pytest.raises(ModelError, match=r"does not survive .*bad\.gguf: SIG") as told:
        check(wanted)
    assert (told.value.kind, told.value.path) == ("LoraAdapterCannotBeLoaded", str(bad))


def test_a_sound_projection_passes_in_full(model_path: Path, projections: dict[str, Path]) -> None:
    check(seeing(model_path, projections["gemma3"]), is_suspect=True)


def test_a_projection_that_kills_its_reader_is_named(
    model_path: Path, tmp_path: Path, projections: dict[str, Path]
) -> None:
    bad = projection_that_kills(projections["janus_pro"], tmp_path / "bad.gguf")
    with pytest.raises(ModelError, match=r"does not survive .*bad\.gguf: SIGABRT \([\w.-]+:\d+: GGML_ASSERT") as told:
        check(seeing(model_path, bad))
    assert (told.value.kind, told.value.path) == ("MultimodalProjectionCannotBeLoaded", str(bad))


def test_what_is_no_projection_of_this_model_is_refused(model_path: Path, tmp_path: Path) -> None:
    other, none = write_projector(tmp_path / "other.gguf", text_width=64), tmp_path / "none.gguf"
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"junk")
    for path in (other, none, junk):
        with pytest.raises(ModelError, match=path.name) as told:
            check(seeing(model_path, path))
        assert (told.value.kind, told.value.path) == ("MultimodalProjectionCannotBeLoaded", str(path))


def test_what_is_no_death_of_llama_cpp_is_left_to_the_engine(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Python that cannot start the child must not stand for a bad file."""
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    check_quietly: Callable[[], None] = lambda: check(settings(model_path))  # noqa: E731
    with capture_logs() as logged:
        check_quietly()
    assert [entry["event"] for entry in logged] == ["could not look at the model"]
