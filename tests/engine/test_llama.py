"""The binding: loading and its errors, tokens, the KV cache, interruption, and what goes to the log."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.engine import ModelError
from workers.agent.context import Context, Decoded, DecodeError
from workers.agent.llama import Model, build_info, generates_text


@pytest.fixture(scope="session")
def model_path(whole_path: Path) -> Path:
    return whole_path


@pytest.fixture(scope="session")
def model(whole_model: Model) -> Model:
    return whole_model


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    made = Context(model, num_sequences=2, context_size=256, max_batch=256, num_threads=2)
    yield made
    made.close()


def decode(context: Context, tokens: list[int], position: int, sequence: int) -> Decoded:
    context.batch.clear()
    context.batch.add(np.array(tokens, np.int32), position, sequence, wants_logits=True)
    return context.decode()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the model .*none\.gguf: No such file"):
        Model(tmp_path / "none.gguf")


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Is a directory"):
        Model(tmp_path)


def test_a_file_of_another_kind_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>404</html>")
    with pytest.raises(ModelError, match="is no GGUF file"):
        Model(tmp_path / "page.gguf")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_an_incomplete_download_is_an_error_not_a_crash(model_path: Path, tmp_path: Path, share: float) -> None:
    with model_path.open("rb") as whole, (tmp_path / "part.gguf").open("wb") as part:
        part.write(whole.read(int(model_path.stat().st_size * share)))
    with pytest.raises(ModelError, match=r"cannot load .*part\.gguf: .+complete"):
        Model(tmp_path / "part.gguf")


def test_progress_is_reported_up_to_the_end(model_path: Path) -> None:
    seen: list[float] = []
    Model(model_path, on_progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_an_exception_from_progress_stops_the_loading(model_path: Path) -> None:
    def stop(_fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Model(model_path, on_progress=stop)


def test_metadata_and_vocabulary(model: Model) -> None:
    assert model.metadata["general.architecture"] == "llama"
    assert model.chat_template is not None
    assert model.metadata["tokenizer.chat_template"] == model.chat_template, "long values are whole"
    assert model.context_length == 8192
    assert model.piece(model.eos, special=True) == b"<|im_end|>"
    assert model.pieces[model.eos] == b""
    assert model.eos in model.end_tokens


@given(text=st.text(st.characters(categories=["L", "N", "P", "Zs"], max_codepoint=0x1FFFF), max_size=60))
def test_tokens_are_the_text(model: Model, text: str) -> None:
    """Of usual characters: this vocabulary lacks a few bytes, of control characters and of the unused planes."""
    pieces = [model.piece(int(token), special=True) for token in model.tokenize(text)]
    assert b"".join(pieces) == text.encode("utf-8", "replace")


def test_models_that_predict_no_next_token_are_known(model: Model) -> None:
    assert generates_text(model.metadata)
    assert not generates_text({"general.architecture": "bert", "bert.attention.causal": "false"})


def test_control_tokens_written_out_are_control_tokens(model: Model) -> None:
    assert model.tokenize("<|im_end|>").tolist() == [model.eos]


def test_sequences_are_independent_and_rows_follow_the_batch(model: Model, context: Context) -> None:
    first, second = model.tokenize("The sky is"), model.tokenize("Two and two make")
    alone: list[int] = []
    for sequence, tokens in enumerate((first, second)):
        assert decode(context, tokens.tolist(), 0, sequence) is Decoded.OK
        alone.append(int(context.logits()[0].argmax()))
        context.remove(sequence)
    context.batch.clear()
    context.batch.add(first, 0, 0, wants_logits=True)
    context.batch.add(second, 0, 1, wants_logits=True)
    assert context.decode() is Decoded.OK
    assert context.logits().shape == (2, model.vocab_size)
    assert context.logits().argmax(axis=1).tolist() == alone
    assert alone[0] != alone[1]


def test_a_copied_sequence_goes_on_without_computing_it_again(model: Model, context: Context) -> None:
    tokens = model.tokenize("My favourite colours are red, green and").tolist()
    decode(context, tokens, 0, 0)
    decode(context, tokens[-1:], len(tokens), 0)
    expected = context.logits()[0].copy()
    context.copy(0, 1, len(tokens))
    context.remove(0)
    decode(context, tokens[-1:], len(tokens), 1)
    assert np.abs(context.logits()[0] - expected).max() < 0.5
    assert int(context.logits()[0].argmax()) == int(expected.argmax())


def test_a_full_cache_is_reported_and_leaves_it_usable(context: Context) -> None:
    assert decode(context, [500] * 200, 0, 0) is Decoded.OK
    assert decode(context, [500] * 100, 0, 1) is Decoded.NO_ROOM
    assert context.remove(0)
    assert decode(context, [500] * 100, 0, 1) is Decoded.OK


def test_an_invalid_batch_is_an_error(context: Context) -> None:
    with pytest.raises(DecodeError, match="code -1"):
        decode(context, [10**9], 0, 0)


def test_interrupt_aborts_a_running_decode_from_another_thread(context: Context) -> None:
    """256 tokens take about a second; the timer fires within them, or before them, which counts as well."""
    timer = threading.Timer(0.1, context.interrupt)
    timer.start()
    assert decode(context, [500] * 256, 0, 0) is Decoded.ABORTED
    timer.join()
    context.clear()
    assert decode(context, [500] * 8, 0, 0) is Decoded.OK, "only that one"


def test_the_build_is_named() -> None:
    assert "llama.cpp" in build_info()
    assert "AVX2" in build_info() or sys.platform != "linux" or os.uname().machine != "x86_64"


def test_too_large_a_context_is_an_error(model: Model) -> None:
    """360 GiB of KV cache."""
    with pytest.raises(ModelError, match="cannot make a context"):
        Context(model, num_sequences=1, context_size=2**24, max_batch=64, num_threads=1)


def test_llama_cpp_logs_through_logging(model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "paddler.llama")
    Model(model_path).close()
    assert any("SmolLM2" in record.message for record in caplog.records)
    assert all(record.levelno < logging.ERROR for record in caplog.records)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )


def test_a_process_that_loads_a_model_keeps_its_output_clean(model_path: Path) -> None:
    code = f"from pathlib import Path; from workers.agent.llama import Model; Model(Path({str(model_path)!r}))"
    ran = run_python(code)
    assert (ran.stdout, ran.stderr) == ("", "")


def test_a_split_name_without_its_other_parts_is_an_error(model_path: Path, tmp_path: Path) -> None:
    shutil.copy(model_path, tmp_path / "m-00001-of-00002.gguf")
    make: Callable[[], Model] = lambda: Model(tmp_path / "m-00002-of-00002.gguf")  # noqa: E731
    with pytest.raises(ModelError, match="No such file"):
        make()
