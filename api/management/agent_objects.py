"""What one agent tells of itself, as types."""

from __future__ import annotations

from typing import TypedDict


class ModelMetadata(TypedDict):
    metadata: dict[str, str]


class TemplateOverride(TypedDict):
    content: str
