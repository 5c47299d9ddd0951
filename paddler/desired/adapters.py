"""LoRA adapters by reference: where a desired state or a flag says that each is, and how much of it is added."""

from __future__ import annotations

from msgspec import Struct

from paddler.desired.schema import DesiredAdapter, GivenModel
from paddler.desired.uris import parse_model_uri, uri_of
from paddler.engine_settings import LoraAdapter


class WantedAdapter(Struct, frozen=True):
    source: GivenModel
    scale: float = 1.0


def of_state(adapters: tuple[DesiredAdapter, ...]) -> tuple[WantedAdapter, ...]:
    return tuple(WantedAdapter(one.source, one.scale) for one in adapters)


def of_flags(adapters: tuple[LoraAdapter, ...]) -> tuple[WantedAdapter, ...]:
    """Raises `ValueError` for what looks like a URI and is none."""
    return tuple(WantedAdapter(source_of(one.path), one.scale) for one in adapters)


def source_of(text: str) -> GivenModel:
    """Of a path, or of a URI as `parse_model_uri` takes it. Raises `ValueError`."""
    return parse_model_uri(text) if is_uri(text) else GivenModel(LocalToAgent=text)


def is_uri(text: str) -> bool:
    return "://" in text


def text_of(source: GivenModel) -> str:
    """As `source_of` reads it; a path as it is."""
    return source.LocalToAgent if source.LocalToAgent is not None else uri_of(source)
