"""What is seen of an image before it is decoded."""

from __future__ import annotations

import io
import struct
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_vision import picture

from paddler.errors import ImageDecodingFailed, InvalidField
from paddler.images import MAX_IMAGE_BYTES, MAX_IMAGES, ImageUnreadable, Measured, check_images, images_of, measure
from paddler.wire.agent import Generate, ImagePart, Message, TextPart

KINDS = ("PNG", "JPEG", "GIF", "WEBP")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (16, 513)])
def test_the_header_tells_kind_and_size(kind: str, size: tuple[int, int]) -> None:
    assert measure(picture(size=size, kind=kind)) == Measured(kind, *size)


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": False}, {"lossless": True, "exif": b"Exif\0\0MM\0*"}]
)
def test_every_kind_of_webp(options: dict[str, object]) -> None:
    into = io.BytesIO()
    Image.new("RGB", (70, 33)).save(into, "WEBP", **options)
    assert measure(into.getvalue()) == Measured("WEBP", 70, 33)


def test_a_progressive_jpeg_with_comments() -> None:
    into = io.BytesIO()
    Image.new("RGB", (70, 33)).save(into, "JPEG", progressive=True, comment=b"x" * 60000, icc_profile=b"y" * 200000)
    assert measure(into.getvalue()) == Measured("JPEG", 70, 33)


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no PNG, JPEG, GIF or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG, GIF or WebP"),
        (b"BM" + bytes(100), "no PNG, JPEG, GIF or WebP"),
        (b"RIFF\0\0\0\0WAVEfmt ", "no PNG, JPEG, GIF or WebP"),
        (b"\x89PNG\r\n\x1a\n", "ends within its header"),
        (b"\xff\xd8\xff", "ends within its header"),
        (b"\xff\xd8\xff\xda\0\x02", "JPEG without a frame header"),
        (b"\xff\xd8\xff\xe0\0\0", "JPEG without a frame header"),
        (png_header(0, 5), "has no pixels"),
        (png_header(60000, 60000), "60000 x 60000 pixels, at most"),
        (png_header(1000, 9), "one side is more than 100 times the other"),
        (bytes(MAX_IMAGE_BYTES + 1), "bytes, at most"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ImageUnreadable, match=why):
        measure(data)


@given(st.sampled_from([picture(kind=kind) for kind in KINDS]), st.data())
def test_a_cut_or_changed_file_is_no_other_error(data: bytes, draw: st.DataObject) -> None:
    head = bytearray(data[: draw.draw(st.integers(0, 64))])
    if head:
        head[draw.draw(st.integers(0, len(head) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(ImageUnreadable):
        measure(bytes(head))


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xe0\0\x02"])
def test_no_file_holds_up_the_balancer(filler: bytes) -> None:
    data = b"\xff\xd8\xff" + filler * ((MAX_IMAGE_BYTES - 3) // len(filler))
    started_at = time.monotonic()
    with pytest.raises(ImageUnreadable):
        measure(data)
    assert time.monotonic() - started_at < 0.1


def test_an_image_is_named_as_its_client_counts() -> None:
    parts = (TextPart("what is"), ImagePart(b"no image"))
    payload = Generate(messages=(Message("system", "x"), Message("user", "what is", parts=parts)))
    assert list(images_of(payload)) == [("messages[1].content[1]", b"no image")]
    with pytest.raises(ImageDecodingFailed, match="no PNG") as caught:
        check_images(payload)
    assert caught.value.param == "messages[1].content[1]"


def test_too_many_are_refused() -> None:
    parts = (ImagePart(picture()),) * (MAX_IMAGES + 1)
    with pytest.raises(InvalidField, match=f"At most {MAX_IMAGES} images") as caught:
        check_images(Generate(messages=(Message("user", "", parts=parts),)))
    assert caught.value.param == f"messages[0].content[{MAX_IMAGES}]"
