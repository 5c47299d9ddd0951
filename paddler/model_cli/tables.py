"""What `paddler model` prints, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paddler.desired.adapters import text_of
from paddler.desired.schema import BalancerDesiredState, InferenceParameters, Versioned
from paddler.desired.uris import uri_of
from paddler.queue_cli.tables import duration

_DEFAULTS = InferenceParameters()


def state_block(pool: str, found: Versioned, now_ms: float) -> Iterator[RenderableType]:
    """A heading, the model, and what is not as by default."""
    yield Text.assemble(("pool ", "dim"), (pool, "bold"), ("  version ", "dim"), str(found.version))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    state = found.state
    if found.version:
        facts.add_row("set", f"{_ago(found, now_ms)} by {found.author or 'somebody'}")
    else:
        facts.add_row("set", Text("by nobody yet: agents without --model wait for a model", style="yellow"))
    facts.add_row("model", uri_of(state.model))
    if state.multimodal_projection != "None":
        facts.add_row("mmproj", uri_of(state.multimodal_projection))
    for one in state.inference_parameters.lora_adapters:
        facts.add_row("lora", text_of(one.source) + ("" if one.scale == 1 else f", {one.scale:g} of it"))
    facts.add_row("template", _template(state))
    if state.aliases:
        facts.add_row("aliases", ", ".join(state.aliases))
    yield Padding(facts, (0, 0, 0, 2), expand=False)
    if rows := list(changed_parameters(state.inference_parameters)):
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
        for name in ("parameter", "value", "by default"):
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*row)
        yield Padding(table, (1, 0, 0, 2), expand=False)
    else:
        yield Padding(Text("All parameters are as by default.", style="dim"), (0, 0, 0, 2), expand=False)


def changed_parameters(parameters: InferenceParameters) -> Iterator[tuple[str, str, str]]:
    """Name, value and default of those that differ; adapters are shown with the model."""
    for field in structs.fields(InferenceParameters):
        value, default = getattr(parameters, field.name), getattr(_DEFAULTS, field.name)
        if value != default and field.name != "lora_adapters":
            yield field.name, _shown(value), _shown(default)


def history_table(versions: list[Versioned], now_ms: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("version", justify="right", no_wrap=True)
    table.add_column("set", no_wrap=True)
    table.add_column("by", overflow="fold", max_width=24)
    table.add_column("model", overflow="fold")
    for one in versions:
        table.add_row(str(one.version), _ago(one, now_ms), one.author, uri_of(one.state.model))
    return table


def _ago(found: Versioned, now_ms: float) -> str:
    return f"{duration(max(0, now_ms - found.updated_ms))} ago"


def _template(state: BalancerDesiredState) -> str:
    override = state.chat_template_override
    if override is None:
        return "the model's"
    size = f"{len(override.content):,} characters"
    return (
        f"overridden, {size}" if state.use_chat_template_override else f"the model's; an override of {size} is not used"
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        parts: tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]
        return ", ".join(repr(part) if isinstance(part, str) else _shown(part) for part in parts) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
