"""The binding of libmtmd: loading and its errors, an image as tokens, rows, and in the KV cache."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_vision import picture, write_projector

from paddler.engine import ModelError
from paddler.images import ImageUnreadable
from workers.agent.context import Context, Decoded
from workers.agent.images import read_image
from workers.agent.llama import Model
from workers.agent.mtmd import ImageChunk, ImageError, Pixels, Projector, RowBatch

FIT = 1024


@pytest.fixture(params=["janus_pro", "gemma3"])
def projector(request: pytest.FixtureRequest, model: Model, projections: dict[str, Path]) -> Iterator[Projector]:
    made = Projector(projections[request.param], model, num_threads=1)
    yield made
    made.close()


def pixels(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Pixels:
    return read_image(picture(seed, size=size), FIT)


def chunks_of(projector: Projector, *images: Pixels) -> list[ImageChunk]:
    parts = projector.read(f"Look: {projector.marker}." * len(images), images)
    return [part for part in parts if isinstance(part, ImageChunk)]


def test_an_image_stands_where_its_marker_was(model: Model, projector: Projector) -> None:
    parts = projector.read(f"One {projector.marker} two {projector.marker}", [pixels(1), pixels(2, (200, 100))])
    chunks = [part for part in parts if isinstance(part, ImageChunk)]
    assert [chunk.image for chunk in chunks] == [0, 1]
    assert {chunk.num_tokens for chunk in chunks} == {64 if projector.is_causal else 16}
    assert all(chunk.num_positions == chunk.num_tokens for chunk in chunks)
    text = "".join(
        "#" if isinstance(part, ImageChunk) else b"".join(model.piece(int(token)) for token in part).decode()
        for part in parts
    )
    expected = "One # two #" if projector.is_causal else "One {#} two {#}"
    assert text == expected.replace("{", "<start_of_image>").replace("}", "<end_of_image>")


def test_rows_are_those_of_the_image(projector: Projector) -> None:
    one, other, again = (projector.encode(chunk) for chunk in chunks_of(projector, pixels(1), pixels(2), pixels(1)))
    assert one.shape == (64 if projector.is_causal else 16, projector.width)
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


def test_an_image_in_the_kv_cache_is_what_comes_next(model: Model, projector: Projector) -> None:
    def next_logits(image: Pixels) -> np.ndarray:
        [chunk] = chunks_of(projector, image)
        context = Context(
            model, num_sequences=2, context_size=256, max_batch=128, num_threads=1, is_undivided=not projector.is_causal
        )
        context.batch.clear()
        context.batch.add(model.tokenize("I see"), 0, 0, wants_logits=False)
        num_before = context.batch.size
        assert context.decode() is Decoded.OK
        batch = RowBatch(128, projector)
        rows, positions = projector.encode(chunk), projector.positions(chunk, num_before)
        batch.add_rows(rows, positions, 0, wants_logits=True)
        assert context.decode_rows(batch, is_causal=projector.is_causal) is Decoded.OK
        assert context.extent(0) == (0, num_before + chunk.num_tokens - 1)
        logits = context.logits()[0].copy()
        context.close()
        return logits

    one, other, again = next_logits(pixels(1)), next_logits(pixels(2)), next_logits(pixels(1))
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


def test_only_our_marker_stands_for_an_image(projector: Projector) -> None:
    with pytest.raises(ImageError, match=r"markers in text \(0\) does not match number of bitmaps \(1\)"):
        projector.read("<__media__> <image>", [pixels()])


def test_a_projection_of_another_width_is_refused(model: Model, tmp_path: Path) -> None:
    path = write_projector(tmp_path / "other.gguf", text_width=64)
    with pytest.raises(ModelError, match=r"n_embd = 576\).*n_embd = 64\)(.|\n)*belongs to this model"):
        Projector(path, model, num_threads=1)


def test_what_is_no_projection_is_refused(model: Model, tmp_path: Path, projections: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"cannot use the multimodal projection .*SmolLM2"):
        Projector(model.path, model, num_threads=1)
    with pytest.raises(ModelError, match=r"cannot read the multimodal projection .*No such file"):
        Projector(tmp_path / "none.gguf", model, num_threads=1)
    part = tmp_path / "part.gguf"
    part.write_bytes(projections["gemma3"].read_bytes()[:-40_000])
    with pytest.raises(ModelError, match=r"cannot use the multimodal projection .*part\.gguf"):
        Projector(part, model, num_threads=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
def test_an_image_is_read_as_it_is(kind: str) -> None:
    expected = np.asarray(Image.open(io.BytesIO(picture(3, kind=kind))).convert("RGB"))
    assert np.array_equal(read_image(picture(3, kind=kind), FIT), expected)


def test_a_large_image_is_made_to_fit_and_a_small_one_left() -> None:
    assert pixels(size=(900, 300)).shape == (300, 900, 3)
    assert read_image(picture(size=(900, 300)), 60).shape == (20, 60, 3)
    assert read_image(picture(size=(900, 9)), 50).shape == (1, 50, 3), "never to nothing"
    assert read_image(picture(size=(2000, 1000), kind="JPEG"), 100).shape == (50, 100, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "I;16", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    into = io.BytesIO()
    wide = Image.fromarray(np.full((10, 20), 200 * 256, np.uint16))
    image = wide if mode == "I;16" else Image.new("L", (20, 10), 200).convert(mode)
    image.save(into, "JPEG" if mode == "CMYK" else "PNG")
    read = read_image(into.getvalue(), FIT)
    assert read.shape == (10, 20, 3)
    assert read.min() >= (200 if mode != "1" else 0) - 2


def test_a_picture_is_turned_as_its_camera_says() -> None:
    into = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(into, "JPEG", exif=exif)
    assert read_image(into.getvalue(), FIT).shape == (40, 20, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_broken_image_is_refused(kind: str) -> None:
    whole = picture(size=(200, 200), kind=kind)
    with pytest.raises(ImageUnreadable, match=f"cannot be decoded as {kind}"):
        read_image(whole[: len(whole) // 2], FIT)
