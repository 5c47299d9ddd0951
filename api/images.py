"""The bytes of an image that came as text."""

from __future__ import annotations

import binascii

from paddler.errors import ImageDecodingFailed


def read_base64(param: str, what: str, text: str) -> bytes:
    """What the bytes are, and how large the image, is looked at later. Raises `ImageDecodingFailed`: `what` of `param`
    is no base64."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ImageDecodingFailed(f"`{param}`: {what} is no base64: {error}.", param=param) from None
