"""Engine options with the real model: each reaches llama.cpp, and what cannot be is refused with its remedy."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from lora import with_delta, write_adapter
from numpy.typing import NDArray

from paddler.clock import SystemClock
from paddler.engine import ModelError
from paddler.engine_settings import CacheType, EngineSettings, LoraAdapter
from paddler.testing.engine_run import EngineRun, embed_job, make_job
from workers.agent.context import Context, Decoded
from workers.agent.llama import Model, lib
from workers.agent.llama_engine import LlamaEngine
from workers.agent.options import ContextOptions, ModelOptions

Make = Callable[..., EngineSettings]
PROMPT = "The capital of France is"
LONG = "Once upon a time there was a small red fox who lived in a forest by the sea. " * 6


@pytest.fixture(scope="session")
def model_path(whole_path: Path) -> Path:
    return whole_path


@pytest.fixture(scope="session")
def model(whole_model: Model) -> Model:
    return whole_model


@pytest.fixture
def make(model_path: Path) -> Make:
    def settings(**given: object) -> EngineSettings:
        return EngineSettings(model_path=str(model_path), slots=2, context_size=512, threads=1, **given)  # pyright: ignore[reportArgumentType]  # any of its fields

    return settings


@pytest.fixture
def make_engine(model: Model, make: Make) -> Iterator[Callable[..., LlamaEngine]]:
    made: list[LlamaEngine] = []

    def engine(**given: object) -> LlamaEngine:
        made.append(LlamaEngine(model, make(**given), SystemClock()))
        return made[-1]

    yield engine
    for one in made:
        one.close()


def logits(model: Model, settings: EngineSettings, text: str = PROMPT) -> NDArray[np.float32]:
    """Behind the last token of a text."""
    context = Context(
        model,
        num_sequences=1,
        context_size=256,
        max_batch=256,
        num_threads=1,
        options=ContextOptions(model, settings),
    )
    context.batch.add(model.tokenize(text), 0, 0, wants_logits=True)
    assert context.decode() is Decoded.OK
    found = context.logits()[0].copy()
    context.close()
    return found


def greedy(engine: LlamaEngine, prompt: str = PROMPT, max_tokens: int = 12) -> str:
    [outcome] = EngineRun(engine).finish(make_job("a", prompt, max_tokens=max_tokens))
    assert outcome.done.usage.completion_tokens <= max_tokens
    return outcome.text


def kv_megabytes(records: list[logging.LogRecord]) -> float:
    """Of the last context that was made, as llama.cpp says."""
    sizes = [re.search(r"KV buffer size = +([\d.]+) MiB", record.getMessage()) for record in records]
    return [float(size[1]) for size in sizes if size][-1]


# The types of the KV cache


def test_the_types_of_the_cache_are_what_it_costs(
    make_engine: Callable[..., LlamaEngine], caplog: pytest.LogCaptureFixture
) -> None:
    """30 layers, 192 numbers each for key and value, 512 cells: 11.25 MiB of f16; 32 of q8_0 take 34 bytes."""
    caplog.set_level(logging.DEBUG, "paddler.llama")
    cost: dict[str, float] = {}
    for kind in ("f32", "f16", "q8_0", "q4_0"):
        caplog.clear()
        make_engine(cache_type_k=kind, cache_type_v=kind)
        cost[kind] = kv_megabytes(caplog.records)
    assert cost["f16"] == pytest.approx(11.25, abs=0.01)
    assert cost["f32"] == pytest.approx(2 * cost["f16"], abs=0.01)
    assert cost["q8_0"] == pytest.approx(cost["f16"] * 34 / 64, abs=0.01)
    assert cost["q4_0"] == pytest.approx(cost["f16"] * 18 / 64, abs=0.01)


@pytest.mark.parametrize("kind", get_args(CacheType))
def test_every_type_serves(make_engine: Callable[..., LlamaEngine], kind: str) -> None:
    text = greedy(make_engine(cache_type_k=kind, cache_type_v=kind))
    assert text.strip()
    if kind in ("f32", "f16", "bf16", "q8_0"):
        assert "Paris" in text


def test_keys_and_values_may_differ_and_embeddings_use_them_too(make_engine: Callable[..., LlamaEngine]) -> None:
    engine = make_engine(cache_type_k="q8_0", cache_type_v="f16")
    assert "Paris" in greedy(engine)
    run = EngineRun(engine)
    outcome = run.start(embed_job("e", LONG))
    run.finish()
    plain = EngineRun(make_engine())
    expected = plain.start(embed_job("e", LONG))
    plain.finish()
    one, other = (np.frombuffer(each.vectors[0], "<f4") for each in (outcome, expected))
    assert one @ other > 0.99
    assert one.tobytes() != other.tobytes()


def test_the_prefix_cache_works_over_a_quantised_cache(make_engine: Callable[..., LlamaEngine]) -> None:
    run = EngineRun(make_engine(cache_type_k="q8_0", cache_type_v="q8_0"))
    [first] = run.finish(make_job("a", LONG, max_tokens=8))
    [second] = run.finish(make_job("b", LONG, max_tokens=8))
    assert second.done.usage.cached_tokens == first.done.usage.prompt_tokens - 1
    assert second.text == first.text


# Flash attention


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_flash_attention_reaches_llama_cpp(
    model: Model, make: Make, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    caplog.set_level(logging.DEBUG, "paddler.llama")
    found = logits(model, make(flash_attention=mode))
    told = {"auto": "auto", "on": "enabled", "off": "disabled"}[mode]
    assert any(re.search(rf"flash_attn += {told}", record.getMessage()) for record in caplog.records)
    assert "Paris" in model.pieces[int(found.argmax())].decode()


def test_with_and_without_it_the_logits_are_close_and_not_the_same(model: Model, make: Make) -> None:
    on, off = (logits(model, make(flash_attention=mode)) for mode in ("on", "off"))
    assert on.tobytes() != off.tobytes()
    assert np.abs(on - off).max() < 2
    assert on.argmax() == off.argmax()


# GPUs: there is none here, so the parameters are looked at


def test_where_the_weights_go_reaches_llama_cpp(make: Make) -> None:
    params = lib.llama_model_default_params()
    options = ModelOptions(make(n_gpu_layers=-1, split_mode="row", main_gpu=1, tensor_split=(3.0, 1.0)))
    options.configure(params)
    assert (params.n_gpu_layers, params.split_mode, params.main_gpu) == (-1, lib.LLAMA_SPLIT_MODE_ROW, 1)
    num_devices = lib.llama_max_devices()
    assert [params.tensor_split[index] for index in range(num_devices)] == [3.0, 1.0, *[0.0] * (num_devices - 2)]


def test_without_them_nothing_is_on_a_gpu_and_llama_cpp_splits_by_memory(make: Make) -> None:
    params = lib.llama_model_default_params()
    ModelOptions(make()).configure(params)
    assert (params.n_gpu_layers, params.split_mode) == (0, lib.LLAMA_SPLIT_MODE_LAYER)
    assert not params.tensor_split


def test_a_model_loads_with_all_of_them(model_path: Path, make: Make) -> None:
    """Without a GPU they have no effect, which is said in the log."""
    Model(model_path, options=ModelOptions(make(n_gpu_layers=-1, tensor_split=(1.0, 1.0)))).close()


def test_more_gpus_than_llama_cpp_knows_are_refused(make: Make) -> None:
    with pytest.raises(ModelError, match="devices at most") as told:
        ModelOptions(make(tensor_split=(1.0,) * 500))
    assert told.value.kind == "SettingsInvalid"
    with pytest.raises(ModelError, match="devices at most"):
        ModelOptions(make(main_gpu=500))


# LoRA


def lora(path: Path, scale: float = 1.0) -> tuple[LoraAdapter, ...]:
    return (LoraAdapter(str(path), scale),)


def test_an_adapter_of_scale_0_changes_nothing(model: Model, make: Make, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a.gguf")
    without = logits(model, make())
    assert logits(model, make(lora_adapters=lora(adapter, 0.0))).tobytes() == without.tobytes()
    assert logits(model, make(lora_adapters=lora(adapter))).tobytes() != without.tobytes()
    assert logits(model, make()).tobytes() == without.tobytes(), "a context without it has nothing of it"


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_the_logits_are_those_of_the_weights_with_the_product_added(
    model_path: Path, make: Make, tmp_path: Path, scale: float
) -> None:
    """The adapter over the model against the model with `scale * alpha / rank * B A` added to its weights."""
    adapter = write_adapter(tmp_path / "a.gguf", size=0.2)
    base = Model(with_delta(model_path, tmp_path / "base.gguf", 0.0))
    merged = Model(with_delta(model_path, tmp_path / "merged.gguf", scale, size=0.2))
    plain = logits(base, make())
    adapted = logits(base, make(lora_adapters=lora(adapter, scale)))
    expected = logits(merged, make())
    assert np.abs(expected - plain).max() > 1
    assert np.abs(adapted - expected).max() < 0.01
    base.close()
    merged.close()


def test_two_adapters_add_up(model: Model, make: Make, tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "a.gguf", seed=1, size=0.2)
    other = write_adapter(tmp_path / "b.gguf", seed=2, size=0.2)
    both = logits(model, make(lora_adapters=(*lora(one), *lora(other))))
    assert np.abs(both - logits(model, make(lora_adapters=lora(one)))).max() > 0.1
    assert np.abs(both - logits(model, make(lora_adapters=lora(other)))).max() > 0.1


def test_an_engine_with_one_reuses_prefixes_and_embeds_with_it(
    make_engine: Callable[..., LlamaEngine], tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", size=0.2)
    vectors: list[NDArray[np.float32]] = []
    texts: list[str] = []
    for adapters in (lora(adapter), lora(adapter, 0.0), ()):
        run = EngineRun(make_engine(lora_adapters=adapters))
        [first] = run.finish(make_job("a", LONG, max_tokens=8))
        [second] = run.finish(make_job("b", LONG, max_tokens=8))
        assert second.done.usage.cached_tokens == first.done.usage.prompt_tokens - 1
        assert second.text == first.text
        texts.append(first.text)
        outcome = run.start(embed_job("e", LONG))
        run.finish()
        vectors.append(np.frombuffer(outcome.vectors[0], "<f4"))
    assert texts[0] != texts[1] == texts[2]
    assert vectors[1] @ vectors[2] > 0.9999, "how it was cut into decodes may differ"
    assert vectors[0] @ vectors[2] < 0.999


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"architecture": "qwen2"}, "arch mismatch"),
        ({"target": "blk.99.ffn_down.weight"}, "does not exist in base model"),
        ({"embedding": 100}, "incorrect shape"),
        ({"kind": "ia3"}, "expect adapter.type to be 'lora'"),
        ({"invocation": (1, 2)}, "aLoRA"),
    ],
)
def test_an_adapter_of_another_model_or_kind_is_refused(
    model: Model, make: Make, tmp_path: Path, wrong: dict[str, object], reason: str
) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", **wrong)  # pyright: ignore[reportArgumentType]  # one of its fields
    with pytest.raises(ModelError, match=reason) as told:
        ContextOptions(model, make(lora_adapters=lora(adapter)))
    assert told.value.kind == "LoraAdapterCannotBeLoaded"


def test_what_is_no_adapter_is_refused(model: Model, make: Make, model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>")
    for path, reason in (
        (tmp_path / "none.gguf", "No such file"),
        (tmp_path / "page.html", "no GGUF file"),
        (model_path, "general.type"),
    ):
        with pytest.raises(ModelError, match=reason):
            ContextOptions(model, make(lora_adapters=lora(path)))
