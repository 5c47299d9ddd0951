"""Every inference parameter is described once, and what is said of it is what is read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from paddler.desired.document import patched
from paddler.desired.engine import engine_options
from paddler.desired.parameters import RELOADING, ParameterDescription, describe_parameters
from paddler.desired.schema import BalancerDesiredState, DesiredAdapter, InferenceParameters
from paddler.engine_settings import EngineSettings
from paddler.errors import InvalidField

DESCRIBED = {one.name: one for one in describe_parameters()}
NUMBERS = [one for one in DESCRIBED.values() if one.kind in ("integer", "number")]
DOCUMENT = Path(__file__).parents[2] / "docs" / "parameters.md"


def changed(name: str, value: Any) -> Any:
    """The value that a state has which was told this one."""
    body = msgspec.json.encode({"inference_parameters": {name: value}})
    return getattr(patched(BalancerDesiredState(), body).inference_parameters, name)


def name_of(one: ParameterDescription) -> str:
    return one.name


def test_each_is_described_with_its_default() -> None:
    fields = structs.fields(InferenceParameters)
    assert DESCRIBED.keys() == {field.name for field in fields}
    assert {one.name: one.default for one in DESCRIBED.values()} == {
        field.name: msgspec.json.decode(msgspec.json.encode(field.default)) for field in fields
    }


@pytest.mark.parametrize("one", NUMBERS, ids=name_of)
def test_the_ends_of_a_range_are_taken_and_what_is_beyond_is_not(one: ParameterDescription) -> None:
    step = 1 if one.kind == "integer" else 0.001
    for end, beyond in ((one.minimum, -step), (one.maximum, step)):
        if end is None:
            continue
        value = int(end) if one.kind == "integer" else end
        assert changed(one.name, value) == value
        with pytest.raises(InvalidField, match=one.name):
            changed(one.name, value + beyond)


@pytest.mark.parametrize("one", [one for one in NUMBERS if one.off is not None], ids=name_of)
def test_what_switches_it_off_is_a_value_that_it_may_have(one: ParameterDescription) -> None:
    off = int(one.off or "") if one.kind == "integer" else float(one.off or "")
    assert changed(one.name, off) == off


@pytest.mark.parametrize("one", [one for one in DESCRIBED.values() if one.choices], ids=name_of)
def test_each_choice_may_be_made_and_no_other(one: ParameterDescription) -> None:
    for choice in one.choices or []:
        assert changed(one.name, choice) == choice
    with pytest.raises(InvalidField, match=one.name):
        changed(one.name, "invented")


def test_what_needs_a_reload_is_what_reaches_the_engine() -> None:
    others: dict[str, Any] = {
        "flash_attention": "on",
        "k_cache_dtype": "Q8_0",
        "v_cache_dtype": "BF16",
        "pooling_type": "Mean",
        "context_shift": True,
        "enable_embeddings": False,
        "ignore_eos": True,
        "model_name": "other",
        "dry_sequence_breakers": ("x",),
        "lora_adapters": (DesiredAdapter(LocalToAgent="/a.gguf"),),
        "split_mode": "row",
        "tensor_split": (3.0, 1.0),
    }
    for one in DESCRIBED.values():
        other = others.get(one.name, 1 if one.default != 1 else 2)
        assert (engine(**{one.name: other}) != engine()) == (one.name in RELOADING), one.name


def engine(**fields: Any) -> EngineSettings:
    return EngineSettings(model_path="", slots=1, **engine_options(InferenceParameters(**fields)))


def test_the_document_says_the_same() -> None:
    assert DOCUMENT.read_text().endswith(tables()), "docs/parameters.md is to end as tables() of this test writes"


def tables() -> str:
    """Of all groups, in Markdown."""
    parts: list[str] = []
    for group in dict.fromkeys(one.group for one in DESCRIBED.values()):
        rows = [_row(one) for one in DESCRIBED.values() if one.group == group]
        head = [f"## {group}", "", "| parameter | what it does | range | default |", "|---|---|---|---|"]
        parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts) + "\n"


def _row(one: ParameterDescription) -> str:
    off = "" if one.off is None else f" {one.off} is off."
    marks = (" (reload)" if one.needs_reload else "") + (" *" if one.is_ours else "")
    return f"| `{one.name}`{marks} | {one.meaning}{off} | {_range(one)} | {_default(one)} |"


def _range(one: ParameterDescription) -> str:
    match one.kind:
        case "integer" | "number":
            low = "up" if one.minimum is None else f"{one.minimum:g}"
            return f"{low} to {one.maximum:g}" if one.kind == "number" else f"{one.minimum:.0f} to {one.maximum:.0f}"
        case "choice":
            return ", ".join(one.choices or [])
        case "boolean":
            return "true, false"
        case "text":
            return f"up to {one.max_length} characters"
        case "texts":
            return f"{one.max_items} of 1 to {one.max_length} characters"
        case "numbers":
            return f"{one.max_items} numbers from {one.minimum:g} on"
        case "adapters":
            return "`path`, `HuggingFace`, `LocalToAgent` or `Url`, with a `scale` of -100 to 100"


def _default(one: ParameterDescription) -> str:
    if isinstance(one.default, str):
        return one.default
    return f"`{msgspec.json.encode(one.default).decode()}`"
