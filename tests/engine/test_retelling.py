"""What another model has said, in the tokens of this one: exactly the text, whatever the vocabulary."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tiny_gguf import write_model, write_spm_model

from paddler.engine import Job, ModelError
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, make_job
from paddler.wire.agent import Generate, Message
from workers.agent.gguf_header import metadata_of
from workers.agent.identity import vocabulary_of, weights_of
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.loading import load
from workers.agent.retelling import retold

STORY = "Once upon a time there was a small red fox who lived"


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    made = Model(write_spm_model(tmp_path_factory.mktemp("spm") / "spm.gguf"))
    yield made
    made.close()


@pytest.fixture(params=["bpe", "few", "spm"])
def any_model(request: pytest.FixtureRequest, model: Model, family_model: Callable[[str], Model], spm: Model) -> Model:
    """SmolLM2, its first two thousand tokens, and SentencePiece."""
    return {"bpe": model, "few": family_model("hermes"), "spm": spm}[request.param]


def text_of(tokens: list[int], model: Model) -> str:
    return b"".join(model.pieces[token] for token in tokens).decode()


@pytest.mark.parametrize("text", ["", " ", "a", " the red fox", "the red fox", "\n\nthe", "🦊 é\n", "<|im_end|>"])
def test_the_tokens_give_the_text(any_model: Model, text: str) -> None:
    assert text_of(retold(text, any_model, any_model.pieces).tolist(), any_model) == text


def test_any_text_has_tokens(model: Model, spm: Model) -> None:
    """SentencePiece has all of it; SmolLM2 lacks a few bytes, and so the characters that have them."""
    known = set(model.pieces)
    assert 200 < sum(len(piece) == 1 for piece in known) < 256

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.text(max_size=30))
    def check(text: str) -> None:
        whole = text.encode("utf-8", "replace").decode()
        assert text_of(retold(text, spm, spm.pieces).tolist(), spm) == whole
        said = [one for one in whole if one.encode() in known or all(bytes([byte]) in known for byte in one.encode())]
        assert text_of(retold(text, model, model.pieces).tolist(), model) == "".join(said)

    check()


def test_the_marks_of_a_format_are_the_tokens_that_it_has_for_them(family_model: Callable[[str], Model]) -> None:
    """Where a model writes calls between control tokens, what another has written as text is read as such."""
    one = family_model("hermes")
    mark = "<tool_call>"
    [token] = one.tokenize(mark).tolist()
    heard = one.pieces.copy()
    heard[token] = mark.encode()
    assert retold(f"so {mark}", one, heard).tolist()[-1] == token


def test_a_vocabulary_without_a_character_leaves_it_out(make_llama: Callable[..., LlamaEngine], model: Model) -> None:
    """The client has it; what comes next begins behind it all the same."""
    pieces = [b"" if b"f" in piece else piece for piece in model.pieces]
    assert text_of(retold("a fox", model, pieces).tolist(), model) == "a ox"
    [whole] = EngineRun(make_llama()).finish(make_job("a", STORY, max_tokens=8))
    said = "\x16" + "".join(whole.pieces[:4])
    job = replace(make_job("b", STORY, max_tokens=8), resume_text=said, num_foreign=4)
    [rest] = EngineRun(make_llama()).finish(job)
    assert said[1:] + rest.text == whole.text


def test_another_model_goes_on_from_the_text(make_llama: Callable[..., LlamaEngine], spm: Model) -> None:
    """What the client has is in its prompt, and counts; nothing of it is said again."""
    [whole] = EngineRun(make_llama()).finish(make_job("a", STORY, max_tokens=12))
    said = "".join(whole.pieces[:6])
    engine = LlamaEngine(spm, EngineSettings(model_path=str(spm.path), slots=1, threads=1), make_llama()._clock)
    job = make_job("a", STORY, max_tokens=12)
    fresh = EngineRun(engine)
    [rest] = fresh.finish(replace(job, resume_text=said, num_foreign=6))
    assert len(rest.ids) in range(1, 7)
    assert rest.done.usage.completion_tokens == 6 + len(rest.ids)
    [same] = fresh.finish(replace(make_job("b", STORY + said, max_tokens=6)))
    assert rest.done.usage.prompt_tokens < same.done.usage.prompt_tokens, "what was said is no part of the prompt"
    engine.close()


def test_a_grammar_goes_on_within_what_was_said(make_llama: Callable[..., LlamaEngine]) -> None:
    payload = Generate(prompt="Say:", max_tokens=12, grammar='root ::= "yes, " [a-z]+')
    job = Job(request_id="a", payload=payload, resume_text="yes", num_foreign=1)
    [rest] = EngineRun(make_llama()).finish(job)
    assert rest.text.startswith(", ")


def test_what_follows_no_grammar_is_refused_and_ends_nothing(make_llama: Callable[..., LlamaEngine]) -> None:
    payload = Generate(prompt="Say:", max_tokens=12, grammar='root ::= "yes, " [a-z]+')
    job = Job(request_id="a", payload=payload, resume_text="no", num_foreign=1)
    [rest] = EngineRun(make_llama()).finish(job)
    assert rest.rejected.code == "engine_failed"


def test_names_are_equal_where_vocabulary_and_weights_are(model: Model, spm: Model, tmp_path: Path) -> None:
    copy = Model(Path(shutil.copyfile(model.path, tmp_path / "copy.gguf")))
    given = EngineSettings(model_path="", slots=1)
    assert vocabulary_of(copy) == vocabulary_of(model) != vocabulary_of(spm)
    assert weights_of(copy, given) == weights_of(model, given) != weights_of(spm, given)
    assert weights_of(model, replace(given, pooling="last")) != weights_of(model, given)
    copy.close()


def test_a_header_as_text(whole_model: Model, tmp_path: Path) -> None:
    told = metadata_of(whole_model.path)
    assert told["general.architecture"] == "llama"
    assert told["llama.block_count"] == "30"
    assert told["tokenizer.chat_template"] == whole_model.chat_template
    assert told["tokenizer.ggml.tokens"].endswith(", ... 49152 in all]")
    assert max(map(len, told.values())) < 20_000
    (tmp_path / "none.gguf").write_bytes(b"GGUF")
    assert metadata_of(tmp_path / "none.gguf") == {}


ECHO = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.mark.parametrize("own", [None, "{% if true %}\n{% endfor %}"], ids=["none", "broken"])
def test_a_model_without_a_template_that_can_be_used_says_so_until_one_is_given(
    own: str | None, model_path: Path, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "bare.gguf", model_path, own)
    engine = load(EngineSettings(model_path=str(path), slots=1, context_size=256, threads=1))
    [told] = engine.info.issues
    assert (told.kind, told.model_path) == ("UnableToFindChatTemplate", str(path))
    assert ("line 2" in told.detail) == (own is not None)
    assert "serves prompts" in told.action
    engine.use_template(ECHO)
    assert engine.info.issues == ()
    engine.use_template(None)
    assert [one.kind for one in engine.info.issues] == ["UnableToFindChatTemplate"]
    [served] = EngineRun(engine).finish(Job(request_id="raw", payload=Generate(prompt="hello", max_tokens=2)))
    assert served.done.usage.prompt_tokens > 0
    engine.close()


def test_a_template_is_changed_between_two_steps(make_llama: Callable[..., LlamaEngine]) -> None:
    engine = make_llama()
    run = EngineRun(engine)
    payload = Generate(messages=(Message("user", "hello"),), max_tokens=1)

    def num_prompt(request_id: str) -> int:
        [outcome] = run.finish(Job(request_id=request_id, payload=payload))
        return outcome.done.usage.prompt_tokens

    own = num_prompt("own")
    engine.use_template(ECHO)
    assert num_prompt("override") < own
    with pytest.raises(ModelError, match="line 2") as refused:
        engine.use_template("{% if true %}\n{% endfor %}")
    assert refused.value.kind == "ChatTemplateDoesNotCompile"
    assert num_prompt("still") < own
    engine.use_template(None)
    assert num_prompt("own again") == own
