"""What a desired state wants of one agent: the files to be fetched, and the engine that is made of them.

What the agent was told by flags is about its machine and wins over the state.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from paddler.desired.adapters import WantedAdapter, of_flags, of_state
from paddler.desired.engine import engine_options
from paddler.desired.schema import BalancerDesiredState, DesiredModel, GivenModel
from paddler.desired.store import DesiredStates
from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings, LoraAdapter, SettingError
from workers.agent.shards import shards_of


class Wanted(Struct, frozen=True, kw_only=True):
    """A version of the state. `model` None: none is wanted."""

    version: int
    state: BalancerDesiredState = BalancerDesiredState()

    @property
    def model(self) -> GivenModel | None:
        return _given(self.state.model)

    @property
    def projection(self) -> GivenModel | None:
        return _given(self.state.multimodal_projection)

    @property
    def template(self) -> str | None:
        override = self.state.chat_template_override
        return override.content if override is not None and self.state.use_chat_template_override else None

    @property
    def is_at_once(self) -> bool:
        return self.state.rollout == "all_at_once"


class WantedFiles(Struct, frozen=True, kw_only=True):
    """All files of the model, the first first, and those of the projection and the adapters."""

    model: tuple[Path, ...]
    projection: Path | None = None
    adapters: tuple[LoraAdapter, ...] = ()


def state_adapters(wanted: Wanted) -> tuple[WantedAdapter, ...]:
    return of_state(wanted.state.inference_parameters.lora_adapters)


def adapters_of(wanted: Wanted, *, own: Mapping[str, Any]) -> tuple[WantedAdapter, ...]:
    """Those of the agent's flags, else those of the state."""
    given: tuple[LoraAdapter, ...] | None = own.get("lora_adapters")
    return state_adapters(wanted) if given is None else of_flags(given)


async def follow_states(states: DesiredStates, pool: str) -> AsyncGenerator[Wanted, None]:
    """The state as it is, then whenever it has changed."""
    async with aclosing(states.changes(pool)) as changes:
        async for found in changes:
            yield Wanted(version=found.version, state=found.state)


def settings_for(
    wanted: Wanted, files: WantedFiles, *, slots: int, own: Mapping[str, Any], lone_step_s: float
) -> EngineSettings:
    """`own` are the settings that the agent has been given by flags. Raises `ModelError`."""
    options: dict[str, Any] = {**engine_options(wanted.state.inference_parameters), **own}
    # Of how GPUs share the model a flag may say half: what the state says of the other half must not contradict it.
    if own.get("split_mode") == "none":
        options["tensor_split"] = own.get("tensor_split", ())
    elif own.get("tensor_split") and "split_mode" not in own and options["split_mode"] == "none":
        options["split_mode"] = "layer"
    options["lora_adapters"] = files.adapters
    if files.projection is not None:
        options.setdefault("multimodal_projection", str(files.projection))
    try:
        return EngineSettings(
            model_path=str(files.model[0]),
            slots=slots,
            lone_step_s=lone_step_s,
            chat_template=wanted.template,
            **options,
        )
    except SettingError as error:
        raise ModelError(str(error), kind="SettingsInvalid") from error


def files_of(settings: EngineSettings) -> tuple[Path, ...]:
    """All that the engine reads, the model first."""
    return (*shards_of(Path(settings.model_path)), *map(Path, settings.other_files))


def needs_reload(old: EngineSettings | None, new: EngineSettings | None) -> bool:
    """Whether an engine of `old` has to go for `new`; a chat template is changed while it runs."""
    return _without_template(old) != _without_template(new)


def _given(model: DesiredModel) -> GivenModel | None:
    return model if isinstance(model, GivenModel) else None


def _without_template(settings: EngineSettings | None) -> EngineSettings | None:
    return None if settings is None else msgspec.structs.replace(settings, chat_template=None)
