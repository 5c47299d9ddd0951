"""What kind of image bytes are, and how large: read from their header, before anything is decoded. Pure.

Formats: PNG, JPEG, GIF, WebP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from msgspec import Struct

from paddler.errors import ImageDecodingFailed, InvalidField, MultimodalNotSupported
from paddler.wire.agent import Generate, ImagePart

MAX_IMAGES = 8
"""In one request: each may be cut into a dozen tiles, which the agent keeps as numbers until they are computed."""
MAX_IMAGE_BYTES = 16 * 1024 * 1024
MAX_PIXELS = 32 * 1024 * 1024
"""100 MB once they are decoded, whatever the size of the file."""
MAX_RATIO = 100
"""Of the longer side to the shorter one: of a thinner one nothing is left when it is made smaller."""

MAX_SEGMENTS = 4096
"""Of a JPEG before its frame header."""

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageUnreadable(ValueError):
    """Why bytes cannot be taken for an image; the message goes on after "the image"."""


class Measured(Struct, frozen=True):
    """`kind` is PNG, JPEG, GIF or WEBP."""

    kind: str
    width: int
    height: int


def images_of(payload: Generate) -> Iterator[tuple[str, bytes]]:
    """The images of a request in order, each with what the client calls it."""
    for number, message in enumerate(payload.messages or ()):
        for index, part in enumerate(message.parts):
            if isinstance(part, ImagePart):
                yield f"messages[{number}].content[{index}]", part.data


def refuse_images(payload: Generate, why: str) -> None:
    """Raises `MultimodalNotSupported` if the request has images."""
    for name, _ in images_of(payload):
        raise MultimodalNotSupported(f"`{name}`: this model takes no images: {why}.", param=name)


def check_images(payload: Generate) -> None:
    """Raises `ImageDecodingFailed`, or `InvalidField` when there are too many."""
    for number, (name, data) in enumerate(images_of(payload), 1):
        if number > MAX_IMAGES:
            raise InvalidField(f"At most {MAX_IMAGES} images are allowed in a request.", param=name)
        try:
            measure(data)
        except ImageUnreadable as error:
            raise ImageDecodingFailed(f"`{name}`: the image cannot be used: {error}.", param=name) from None


def measure(data: bytes) -> Measured:
    """Raises `ImageUnreadable` for what is no image of a known kind or too large."""
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageUnreadable(f"it has {len(data)} bytes, at most {MAX_IMAGE_BYTES} are allowed")
    try:
        found = _measure(data)
    except (struct.error, IndexError):
        raise ImageUnreadable("it ends within its header") from None
    if found is None:
        raise ImageUnreadable("it is no PNG, JPEG, GIF or WebP")
    width, height = found.width, found.height
    if not width or not height:
        raise ImageUnreadable("it has no pixels")
    if width * height > MAX_PIXELS:
        raise ImageUnreadable(f"it has {width} x {height} pixels, at most {MAX_PIXELS} are allowed: send a smaller one")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageUnreadable(f"it has {width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
    return found


def _measure(data: bytes) -> Measured | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Measured("PNG", *struct.unpack_from(">II", data, 16))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Measured("GIF", *struct.unpack_from("<HH", data, 6))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _measure_webp(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _measure_jpeg(data)
    return None


def _measure_webp(data: bytes) -> Measured | None:
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return Measured("WEBP", width & 0x3FFF, height & 0x3FFF)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return Measured("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
            return Measured("WEBP", width, height) if len(data) >= 30 else None
        case _:
            return None


def _measure_jpeg(data: bytes) -> Measured:
    """From the first frame header; segments before it are skipped by their length."""
    at = 2
    # Bounded, because the balancer serves nobody else meanwhile.
    for _ in range(MAX_SEGMENTS):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Measured("JPEG", width, height)
        if marker == 0xDA or length < 2:
            break
        at += 2 + length
    raise ImageUnreadable("it is a JPEG without a frame header")
