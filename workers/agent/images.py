"""From the bytes of an image file to pixels. Raises `ImageUnreadable` for what is no image, or not all of one."""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps

from paddler.images import ImageUnreadable, measure
from workers.agent.mtmd import Pixels

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_image(data: bytes, fit: int) -> Pixels:
    """Its pixels, turned as its camera says, made smaller so that neither side is longer than `fit`. Of an animation
    the first frame; transparency is left out. Raises `ImageUnreadable`."""
    kind = measure(data).kind
    try:
        # Only the decoder of the format that `measure` found, and only what its limits let through.
        with Image.open(io.BytesIO(data), formats=(kind,)) as opened:
            opened.draft("RGB", (fit, fit))  # a large JPEG is decoded at a fraction of its size
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode in _WIDE_MODES:
                image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
            image = image.convert("RGB")
            image.thumbnail((fit, fit), Image.Resampling.BICUBIC)
            return np.asarray(cast(Any, image), np.uint8)
    except Exception as error:  # a decoder may raise anything on bytes made to confuse it
        raise ImageUnreadable(f"it cannot be decoded as {kind} ({error})") from error
