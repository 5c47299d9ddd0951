"""Making a desired state ready: what cannot be had is told and waited out, never tried in a loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from paddler.clock import SystemClock
from paddler.desired.schema import BalancerDesiredState, ChatTemplate, GivenModel, InferenceParameters
from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings
from paddler.issues import IssueKind, decode_issues
from paddler.remedies import ACTIONS, Course
from paddler.testing.waiting import wait_until
from workers.agent.builds import check_scripted
from workers.agent.fetch.cache import ModelCache
from workers.agent.preparation import Preparation, Prepared
from workers.agent.standing import GOES_ON, Standing
from workers.agent.wanted import Wanted, WantedFiles, needs_reload, settings_for

pytestmark = pytest.mark.anyio


def state_of(path: Path | None, **fields: Any) -> BalancerDesiredState:
    model = "None" if path is None else GivenModel(LocalToAgent=str(path))
    return BalancerDesiredState(model=model, **fields)


def make(wanted: Wanted, files: WantedFiles) -> EngineSettings:
    return settings_for(wanted, files, slots=2, own={}, lone_step_s=1.0)


class Bench:
    """A preparation whose states a test sends, and what it has looked at."""

    def __init__(self, folder: Path) -> None:
        self.standing = Standing(SystemClock())
        self.looked_at: list[EngineSettings] = []
        self.fault: ModelError | None = None
        self._states: asyncio.Queue[Wanted] = asyncio.Queue()
        self._version = 0
        cache = ModelCache(root=folder / "cache")
        self.preparation = Preparation(self._changes, cache, make, self._check, self.standing, SystemClock())

    def put(self, state: BalancerDesiredState) -> int:
        self._version += 1
        self._states.put_nowait(Wanted(version=self._version, state=state))
        return self._version

    def lose(self) -> None:
        self._states.put_nowait(Wanted(version=0))

    async def _changes(self) -> AsyncGenerator[Wanted, None]:
        while True:
            yield await self._states.get()

    def _check(self, settings: EngineSettings) -> None:
        self.looked_at.append(settings)
        if self.fault is not None:
            raise self.fault
        check_scripted(settings)

    async def ready(self, version: int) -> Prepared:
        async def is_ready() -> Prepared | None:
            found = self.preparation.ready
            return found if found is not None and found.version == version else None

        return await wait_until(is_ready, what=f"version {version} is ready")

    async def status(self, wanted: str) -> None:
        await wait_until(lambda: self.standing.status == wanted, what=f"it is {wanted}, not {self.standing.status}")

    @property
    def kinds(self) -> list[IssueKind]:
        return [issue.kind for issue in self.standing.issues]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.gguf"
    path.write_bytes(b"GGUF good")
    return path


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Bench]:
    bench = Bench(folder)
    loops = [asyncio.create_task(one) for one in (bench.preparation.watch_loop(), bench.preparation.prepare_loop())]
    yield bench
    for loop in loops:
        assert not loop.done(), loop.exception()
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as made:
        yield made


async def test_a_state_becomes_settings(bench: Bench, good: Path) -> None:
    parameters = InferenceParameters(context_size=512, k_cache_dtype="Q8_0", pooling_type="Cls")
    prepared = await bench.ready(bench.put(state_of(good, inference_parameters=parameters)))
    assert prepared.settings is not None
    assert prepared.settings.model_path == str(good)
    assert (prepared.settings.context_size, prepared.settings.slots) == (512, 2)
    assert (prepared.settings.cache_type_k, prepared.settings.pooling) == ("q8_0", "cls")
    assert prepared.files == (good,)
    assert (bench.standing.status, bench.standing.version) == ("Fresh", 1), "ready is not served"


async def test_no_model_is_a_wish_too(bench: Bench) -> None:
    assert (await bench.ready(bench.put(state_of(None)))).settings is None


async def test_a_state_that_is_lost_is_no_wish_for_nothing(bench: Bench, good: Path) -> None:
    """A Redis that was emptied must not empty the fleet."""
    prepared = await bench.ready(bench.put(state_of(good)))
    bench.lose()
    again = await bench.ready(bench.put(state_of(good)))
    assert (prepared.settings, again.version) == (again.settings, 2)
    assert len(bench.looked_at) == 2, "and nothing between the two"


async def test_a_missing_file_is_not_applicable_until_it_is_there(bench: Bench, tmp_path: Path) -> None:
    late = tmp_path / "late.gguf"
    version = bench.put(state_of(late))
    await bench.status("AttemptedAndNotAppliable")
    assert bench.kinds == ["ModelFileDoesNotExist"]
    late.write_bytes(b"GGUF")
    await bench.ready(version)
    assert bench.standing.issues == ()


async def test_what_is_no_gguf_is_looked_at_once(bench: Bench, tmp_path: Path) -> None:
    """And again when the file has changed, whatever else the clock says."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"html")
    version = bench.put(state_of(bad))
    await bench.status("AttemptedAndNotAppliable")
    assert bench.kinds == ["ModelCannotBeLoaded"]
    assert len(bench.looked_at) == 1
    bad.write_bytes(b"GGUF at last")
    await bench.ready(version)
    assert len(bench.looked_at) == 2


async def test_a_template_that_does_not_compile_is_told_with_its_place(bench: Bench, good: Path) -> None:
    template = ChatTemplate("{{ messages }}\n{% if %}")
    bench.put(state_of(good, chat_template_override=template, use_chat_template_override=True))
    await bench.status("AttemptedAndNotAppliable")
    [issue] = bench.standing.issues
    assert (issue.kind, issue.template_content) == ("ChatTemplateDoesNotCompile", template.content)
    assert "line 2" in issue.detail
    await bench.ready(bench.put(state_of(good, chat_template_override=template)))
    assert bench.standing.issues == (), "it is not used"


async def test_a_newer_state_does_not_wait_for_an_older_one(bench: Bench, good: Path, tmp_path: Path) -> None:
    bench.put(state_of(tmp_path / "never.gguf"))
    await bench.status("AttemptedAndNotAppliable")
    prepared = await bench.ready(bench.put(state_of(good)))
    assert prepared.version == 2


async def test_what_could_not_be_loaded_is_refused_until_something_changes(bench: Bench, good: Path) -> None:
    """A load costs the model that serves: nothing of it is repeated by time alone."""
    prepared = await bench.ready(bench.put(state_of(good)))
    bench.preparation.refuse(prepared, ModelError("too large for this machine", kind="SlotCannotStart"))
    await bench.status("AttemptedAndNotAppliable")
    assert bench.preparation.ready is None
    assert len(bench.looked_at) == 1
    assert not bench.standing.issues[0].action.startswith(GOES_ON)
    bench.standing.serves(0, None)
    bench.standing.applied = 7
    assert bench.standing.issues[0].action.startswith(f"{GOES_ON} It tries again as soon as the file changes")
    good.write_bytes(b"GGUF smaller")
    assert await bench.ready(1) is not prepared


async def test_one_that_was_refused_too_late_is_no_news(bench: Bench, good: Path) -> None:
    old = await bench.ready(bench.put(state_of(good)))
    new = await bench.ready(bench.put(state_of(good)))
    bench.preparation.refuse(old, ModelError("no"))
    assert bench.preparation.ready is new


async def test_settings_that_do_not_go_together_are_told(tmp_path: Path, good: Path) -> None:
    """What a state may say, and the flags of this agent forbid."""
    wanted = Wanted(version=1, state=state_of(good, inference_parameters=InferenceParameters(v_cache_dtype="Q8_0")))
    own = {"flash_attention": "off"}
    with pytest.raises(ModelError, match="flash attention") as refused:
        settings_for(wanted, WantedFiles(model=(good,)), slots=1, own=own, lone_step_s=1.0)
    assert refused.value.kind == "SettingsInvalid"


async def test_a_state_that_flags_forbid_ends_nothing(bench: Bench, good: Path) -> None:
    """The agent stays in its pool, and says so."""
    bench.fault = ModelError("no", kind="SettingsInvalid")
    bench.put(state_of(good))
    await bench.status("AttemptedAndNotAppliable")
    [issue] = bench.standing.issues
    assert (issue.kind, issue.action) == ("SettingsInvalid", ACTIONS[Course.GIVES_UP])


async def test_flags_win_over_the_state(good: Path, tmp_path: Path) -> None:
    parameters = InferenceParameters(context_size=512, model_name="theirs")
    wanted = Wanted(version=1, state=state_of(good, inference_parameters=parameters))
    own = {"context_size": 256, "model_name": "mine", "threads": 1}
    projection = tmp_path / "mmproj.gguf"
    made = settings_for(wanted, WantedFiles(model=(good,), projection=projection), slots=3, own=own, lone_step_s=0.5)
    assert (made.context_size, made.model_name, made.threads, made.slots) == (256, "mine", 1, 3)
    assert (made.multimodal_projection, made.lone_step_s) == (str(projection), 0.5)


async def test_flags_of_how_gpus_share_the_model_win_over_the_state_whole_or_half(good: Path) -> None:
    def split(parameters: InferenceParameters, **own: Any) -> tuple[str, int, tuple[float, ...]]:
        wanted = Wanted(version=1, state=state_of(good, inference_parameters=parameters))
        made = settings_for(wanted, WantedFiles(model=(good,)), slots=1, own=own, lone_step_s=1.0)
        return made.split_mode, made.main_gpu, made.tensor_split

    shared = InferenceParameters(split_mode="row", main_gpu=1, tensor_split=(3.0, 1.0))
    assert split(shared) == ("row", 1, (3.0, 1.0))
    assert split(shared, main_gpu=0, tensor_split=(1.0, 1.0)) == ("row", 0, (1.0, 1.0))
    assert split(shared, split_mode="none") == ("none", 1, ())
    alone = InferenceParameters(split_mode="none", main_gpu=1)
    assert split(alone, tensor_split=(1.0, 2.0)) == ("layer", 1, (1.0, 2.0))
    with pytest.raises(ModelError, match="give one"):
        split(shared, split_mode="none", tensor_split=(1.0, 1.0))


def test_only_what_reaches_the_engine_needs_a_reload(good: Path) -> None:
    def settings(**fields: Any) -> EngineSettings:
        wanted = Wanted(version=1, state=state_of(good, **fields))
        return make(wanted, WantedFiles(model=(good,)))

    served = settings()
    warm = InferenceParameters(temperature=1.5, top_k=3, enable_embeddings=False)
    template = {"chat_template_override": ChatTemplate("{{ x }}"), "use_chat_template_override": True}
    assert not needs_reload(served, settings(inference_parameters=warm))
    assert not needs_reload(served, settings(**template))
    assert settings(**template).chat_template == "{{ x }}"
    assert needs_reload(served, settings(inference_parameters=InferenceParameters(context_size=64)))
    assert needs_reload(served, settings(inference_parameters=InferenceParameters(k_cache_dtype="Q8_0")))
    assert needs_reload(served, None)


async def test_the_hash_of_an_agent_tells_all_of_it(bench: Bench, good: Path) -> None:
    version = bench.put(state_of(good))
    await bench.ready(version)
    bench.standing.serves(version, "{{ x }}")
    fields = bench.standing.fields()
    assert decode_issues(fields["issues"] if isinstance(fields["issues"], bytes) else None) == ()
    assert {name: value for name, value in fields.items() if name != "issues"} == {
        "state_application_status": "Applied",
        "desired_version": 1,
        "applied_version": 1,
        "uses_chat_template_override": 1,
        "download_current": 0,
        "download_total": 0,
        "download_filename": "",
        "download_indeterminate": 0,
    }
