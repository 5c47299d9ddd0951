"""Errors in the words of Anthropic's protocol: what lies behind it, checks and agents, names fields as OpenAI does."""

from __future__ import annotations

import re
from collections.abc import Iterable

from paddler.chat_formats.variables import ENABLE_THINKING
from paddler.errors import PaddlerError

ImageNames = Iterable[tuple[str, str]]

_NAMES = {"stop": "stop_sequences", "grammar": "output_config.format"}
_SCHEMA = re.compile(r"(tools\[\d+\])\.function\.parameters")


def own_words(error: PaddlerError, images: ImageNames = ()) -> PaddlerError:
    """The same error with the client's name for the field at fault; `images` maps those of images."""
    param = error.param or ""
    if param == f"chat_template_kwargs.{ENABLE_THINKING}":
        return _renamed(error, "thinking", f"`thinking`: {error.message}")
    if param in _NAMES:
        return _renamed(error, _NAMES[param], error.message)
    name = _SCHEMA.sub(r"\1.input_schema", dict(images).get(param, param))
    return error if name == param else _renamed(error, name, error.message.replace(f"`{param}`", f"`{name}`"))


def _renamed(error: PaddlerError, param: str, message: str) -> PaddlerError:
    return type(error)(message, param=param, retry_after_s=error.retry_after_s)
