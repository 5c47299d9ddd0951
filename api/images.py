"""An image within a request. Whoever reads it calls no address: `api/remote_images.py` has done so, where it may."""

from __future__ import annotations

import binascii
import re

from paddler.errors import ImageDecodingFailed, InvalidField

_DATA_URL = re.compile(r"data:(image/[\w.+-]{1,40})?(;[\w.+-]{1,40}=[^;,]{0,100})*;base64,", re.IGNORECASE)
_EXAMPLE = "`data:image/png;base64,...`"


def read_image_url(param: str, url: str) -> bytes:
    """The bytes of the image that the `image_url` of a content part is; what they are, and how large, is looked at
    later. `param` is the part. Raises `InvalidField` for an address, `ImageDecodingFailed` for a data URL that holds no
    base64."""
    where = f"{param}.image_url.url"
    if url[:5].lower() != "data:":
        raise InvalidField(
            f"`{where}`: remote images are not fetched; send the image itself as {_EXAMPLE}, or have the balancer "
            "started with --allow-image-hosts.",
            param=where,
        )
    found = _DATA_URL.match(url)
    if found is None:
        raise ImageDecodingFailed(
            f"`{param}`: the data URL must be an image in base64, such as {_EXAMPLE}.", param=param
        )
    return read_base64(param, "the data URL", url[found.end() :])


def read_base64(param: str, what: str, text: str) -> bytes:
    """What the bytes are, and how large the image, is looked at later. Raises `ImageDecodingFailed`: `what` of `param`
    is no base64."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ImageDecodingFailed(f"`{param}`: {what} is no base64: {error}.", param=param) from None
