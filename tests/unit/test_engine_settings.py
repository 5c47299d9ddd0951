"""Engine settings: from a desired state, from flags, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import rich_click as click
from click.testing import CliRunner
from msgspec import structs

from paddler.engine_flags import NAMES, engine_options, engine_settings, flag_value, in_flags, parse_adapter
from paddler.engine_settings import EngineSettings, LoraAdapter, SettingError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cache_type_k": "q3_k"}, "--cache-type-k is one of f32, f16, bf16, q8_0"),
    ({"cache_type_v": "q8_0", "flash_attention": "off"}, "leave --flash-attention at auto, or choose f16"),
    ({"flash_attention": "maybe"}, "--flash-attention is one of auto, on, off"),
    ({"split_mode": "column"}, "--split-mode is one of none, layer, row"),
    ({"n_gpu_layers": -2}, "--n-gpu-layers is a number of layers, or -1 for all"),
    ({"main_gpu": -1}, "--main-gpu is the number of a GPU"),
    ({"tensor_split": (0.0, 0.0)}, "--tensor-split is the share of each GPU, such as 3,1"),
    ({"tensor_split": (1.0, -1.0)}, "--tensor-split is the share"),
    ({"tensor_split": (float("nan"),)}, "--tensor-split is the share"),
    ({"tensor_split": (1.0,), "split_mode": "none"}, "--split-mode none that one has all of it: give one"),
    ({"lora_adapters": (LoraAdapter("a", 1000.0),)}, "--lora-adapters: the scale of a is 1000"),
    ({"lora_adapters": (LoraAdapter("a"), LoraAdapter("a"))}, "--lora-adapters names a file twice"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_mistake_names_the_flag_and_the_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as told:
        EngineSettings(model_path="m", slots=1, **given)
    assert message in in_flags(str(told.value))


def test_a_desired_state_decodes_with_the_names_of_paddler() -> None:
    state = {
        "model_path": "m.gguf",
        "slots": 4,
        "k_cache_dtype": "Q8_0",
        "v_cache_dtype": "F16",
        "n_gpu_layers": -1,
        "tensor_split": [3, 1],
        "lora_adapters": [{"path": "a.gguf", "scale": 0.5}, {"path": "b.gguf"}],
    }
    settings = msgspec.json.decode(msgspec.json.encode(state), type=EngineSettings)
    assert (settings.cache_type_k, settings.cache_type_v) == ("q8_0", "f16")
    assert settings.tensor_split == (3.0, 1.0)
    assert settings.lora_adapters == (LoraAdapter("a.gguf", 0.5), LoraAdapter("b.gguf"))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=EngineSettings) == settings


def test_a_wrong_one_is_a_validation_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="is one of"):
        msgspec.json.decode(b'{"model_path": "m", "slots": 1, "k_cache_dtype": "q3"}', type=EngineSettings)


@pytest.mark.parametrize(
    ("text", "adapter"),
    [
        ("a.gguf", LoraAdapter("a.gguf")),
        ("a.gguf:0.5", LoraAdapter("a.gguf", 0.5)),
        ("a.gguf:-1", LoraAdapter("a.gguf", -1.0)),
        ("C:/a.gguf", LoraAdapter("C:/a.gguf")),
        ("odd:name.gguf:2", LoraAdapter("odd:name.gguf", 2.0)),
    ],
)
def test_an_adapter_is_a_path_and_a_scale(text: str, adapter: LoraAdapter) -> None:
    assert parse_adapter(text) == adapter
    assert parse_adapter(flag_value(adapter)) == adapter


def parsed(*arguments: str, **environment: str) -> EngineSettings:
    found: list[EngineSettings] = []

    @click.command()
    @engine_options
    def command(**given: Any) -> None:
        found.append(engine_settings(model=Path("m"), values=given, slots=1))

    ran = CliRunner(env=environment).invoke(command, arguments, standalone_mode=False)
    if ran.exception is not None:
        raise ran.exception
    return found[0]


def test_flags_and_variables() -> None:
    flags = ("--cache-type-k", "Q8_0", "--n-gpu-layers", "all", "--tensor-split", "3,1", "--lora-adapters", "a:2,b")
    settings = parsed(*flags, PADDLER_FLASH_ATTENTION="on", PADDLER_THREADS="3", PADDLER_SPLIT_MODE="row")
    wanted = EngineSettings(
        model_path="m",
        slots=1,
        cache_type_k="q8_0",
        n_gpu_layers=-1,
        tensor_split=(3.0, 1.0),
        lora_adapters=(LoraAdapter("a", 2.0), LoraAdapter("b")),
        flash_attention="on",
        threads=3,
        split_mode="row",
    )
    assert settings == wanted
    assert parsed() == EngineSettings(model_path="m", slots=1), "without flags the defaults are the engine's"


def test_what_a_flag_is_given_is_passed_on_as_it_was_meant() -> None:
    settings = parsed("--n-gpu-layers", "-1", "--tensor-split", "0.5,1", "--lora-adapters", "a:0.25,b")
    again = [
        part
        for name in ("n_gpu_layers", "tensor_split", "lora_adapters")
        for part in (f"--{name.replace('_', '-')}", flag_value(getattr(settings, name)))
    ]
    assert parsed(*again) == settings


@pytest.mark.parametrize(
    "wrong",
    [("--n-gpu-layers", "many"), ("--tensor-split", "a,b"), ("--lora-adapters", "a,,b"), ("--cache-type-v", "x")],
)
def test_a_flag_that_cannot_be_read_is_a_usage_error(wrong: tuple[str, str]) -> None:
    with pytest.raises(click.UsageError):
        parsed(*wrong)


def test_every_flag_is_a_field() -> None:
    assert set(NAMES) <= {field.name for field in structs.fields(EngineSettings)}
