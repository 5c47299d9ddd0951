"""What a balancer must know to render a native request that another one submitted."""

from __future__ import annotations

from msgspec import Struct


class NativeLabel(Struct, frozen=True, array_like=True, tag="native"):
    """`is_raw`: it was a raw prompt, so that nobody can tell what of its text is reasoning. `parses_calls`: the calls
    of tools are told once more at the end, as a list."""

    is_raw: bool = False
    parses_calls: bool = False
