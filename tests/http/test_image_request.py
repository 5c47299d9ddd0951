"""Images in the body of a chat completion: what becomes of them, and how what is wrong is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tiny_vision import picture

from api.openai.chat import ChatCall, read_chat_call
from paddler.errors import ImageDecodingFailed, InvalidField, PaddlerError
from paddler.images import MAX_IMAGES
from paddler.wire.agent import ImagePart, Message, TextPart

PNG = picture(1)


def data_url(data: bytes = PNG, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image(url: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url() if url is None else url, **more}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def read(*content: dict[str, Any]) -> ChatCall:
    body = {"model": "m", "messages": [{"role": "user", "content": list(content)}]}
    return read_chat_call(json.dumps(body).encode(), 0)


def message_of(*content: dict[str, Any]) -> Message:
    messages = read(*content).payload.messages
    assert messages is not None
    assert len(messages) == 1
    return messages[0]


def refusal(*content: dict[str, Any]) -> PaddlerError:
    with pytest.raises(PaddlerError) as caught:
        read(*content)
    assert caught.value.status == 400
    return caught.value


def test_the_order_of_texts_and_images_is_kept() -> None:
    message = message_of(text("What is"), image(), text("and"), image(data_url(picture(2))))
    parts = (TextPart("What is"), ImagePart(PNG), TextPart("and"), ImagePart(picture(2)))
    assert message == Message("user", "What is\nand", parts=parts)


def test_texts_alone_are_what_they_were() -> None:
    assert read(text("one"), text("two")).payload.messages == (Message("user", "one\ntwo"),)


@pytest.mark.parametrize("detail", ["auto", "low", "high", None])
def test_detail_is_accepted(detail: str | None) -> None:
    assert message_of(image(detail=detail)).parts == (ImagePart(PNG),)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_the_bytes_tell_the_format_not_their_label(kind: str) -> None:
    data = picture(3, kind=kind)
    for label in (f"image/{kind.lower()}", "image/png", "image/png;name=a.png", ""):
        assert message_of(image(data_url(data, label))).parts == (ImagePart(data),)


@pytest.mark.parametrize(
    "url", ["https://example.com/cat.png", "http://127.0.0.1/", "file:///etc/passwd", "", "ftp://x"]
)
def test_no_address_is_called(url: str) -> None:
    error = refusal(text("x"), image(url))
    assert isinstance(error, InvalidField)
    assert error.param == "messages[0].content[1].image_url.url"
    assert "remote images are not fetched" in error.message
    assert "data:image/png;base64" in error.message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data:image/png,%89PNG", "must be an image in base64"),
        ("data:text/html;base64,PGI+", "must be an image in base64"),
        ("data:image/png;base64,PGI", "no base64"),
        ("data:image/png;base64,PG I+", "no base64"),
        ("data:image/png;base64,é", "no base64"),
        ("data:image/png;base64,", "no PNG, JPEG, GIF or WebP"),
        (data_url(b"<svg/>", "image/svg+xml"), "no PNG, JPEG, GIF or WebP"),
        (data_url(PNG[:20]), "ends within its header"),
        (data_url(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff"), "65535 x 65535 pixels, at most"),
    ],
)
def test_a_bad_image_is_named(url: str, says: str) -> None:
    error = refusal(text("x"), image(url))
    assert isinstance(error, ImageDecodingFailed)
    assert error.code == "image_decoding_failed"
    assert error.param == "messages[0].content[1]"
    assert says in error.message


def test_too_many_images_are_refused() -> None:
    assert len(message_of(*[image()] * MAX_IMAGES).parts) == MAX_IMAGES
    error = refusal(*[image()] * (MAX_IMAGES + 1))
    assert error.param == f"messages[0].content[{MAX_IMAGES}]"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url"}, "image_url"),
        ({"type": "image_url", "image_url": "data:"}, "image_url"),
        ({"type": "image_url", "image_url": {}}, "image_url.url"),
        (image(detail="huge"), "image_url.detail"),
        (image(size=3), "image_url.size"),
        ({**image(), "text": "x"}, "text"),
        ({**text("x"), "image_url": {"url": "data:"}}, "image_url"),
    ],
)
def test_mistakes_within_a_part_are_named(part: dict[str, Any], param: str) -> None:
    error = refusal(part)
    assert error.param == f"messages[0].content[0].{param}"
