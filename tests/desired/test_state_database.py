"""`--state-database`: which values there are, what is in the file, and how it and Redis are kept together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import rich_click as click
from click.testing import CliRunner
from structlog.testing import capture_logs

from paddler.clock import SystemClock
from paddler.desired.database import FileKeeper, StateDatabase, parse_database, state_database_option
from paddler.desired.document import document_of
from paddler.desired.file import StateFile, UnusableFile
from paddler.desired.schema import BalancerDesiredState, GivenModel, InferenceParameters, Versioned
from paddler.desired.store import DesiredStates
from paddler.store.client import Store, connect
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

STATE = BalancerDesiredState(
    model=GivenModel(LocalToAgent="/m.gguf"), inference_parameters=InferenceParameters(temperature=0.25)
)
OTHER = BalancerDesiredState(model=GivenModel(LocalToAgent="/other.gguf"))


def content(state: BalancerDesiredState = STATE, **fields: Any) -> str:
    return json.dumps({"balancer_desired_state": document_of(state), "version": "1"} | fields)


@pytest.mark.parametrize("text", ["memory://", "redis"])
def test_redis_alone(text: str) -> None:
    assert parse_database(text) == StateDatabase(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///srv/state.json", "/srv/state.json"),
        ("file://localhost/srv/state.json", "/srv/state.json"),
        ("file:///srv/my%20state.json", "/srv/my state.json"),
    ],
)
def test_a_file(text: str, path: str) -> None:
    assert parse_database(text).path == Path(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file://state.json", "is relative; it is to be file://{cwd}/state.json"),
        ("file:state.json", "is relative; it is to be file://{cwd}/state.json"),
        ("file://./a/state.json", "is relative; it is to be file://{cwd}/a/state.json"),
        ("state.json", "is no URL; it is memory://, redis, or a file as file://{cwd}/state.json"),
        ("/srv/state.json", "or a file as file:///srv/state.json"),
        ("sqlite:///srv/state.db", "sqlite: is unknown; it is memory://, redis, or a file as file:///path"),
        ("file:///tmp", "is a directory; name a file in it, as file:///tmp/state.json"),
        ("file:///srv/a.json?x=1", "write ? as %3F"),
    ],
)
def test_what_it_cannot_be(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words.format(cwd=Path.cwd()))):
        parse_database(text)


def test_the_file_is_paddler_4s(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    assert file.load() is None
    assert file.save(STATE)
    assert not file.save(STATE), "it says so already"
    assert json.loads(file.path.read_text()) == json.loads(content())
    assert file.path.read_text().startswith('{\n  "balancer_desired_state": {\n')
    assert file.load() == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_an_empty_file_is_none(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.path.write_text("\n")
    assert file.load() is None


def test_of_an_older_paddler_some_fields_are_missing(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    document = document_of(STATE)
    del document["multimodal_projection"], document["inference_parameters"]["image_resize_to_fit"]
    file.path.write_text(json.dumps({"balancer_desired_state": document, "version": "1"}))
    assert file.load() == STATE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("\x00", "is no JSON"),
        ("[]", "must be a JSON object"),
        (content(version="2"), "`version` is '2', but this Paddler reads files of the version \"1\""),
        (json.dumps({"version": "1"}), "`balancer_desired_state` is required"),
        (content(more=1), "unknown field `more`"),
        (content(balancer_desired_state={"model": 3}), "`balancer_desired_state.model`"),
        (content(balancer_desired_state={"modl": 3}), "Unknown field `balancer_desired_state.modl`"),
        (content(balancer_desired_state={"inference_parameters": {"top_p": 2}}), "top_p must be between"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(UnusableFile) as told:
        StateFile(path).load()
    assert words in str(told.value)
    assert str(path) in str(told.value)


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="does not exist: make it first"):
        StateFile(tmp_path / "nowhere" / "state.json").load()
    with pytest.raises(UnusableFile, match="cannot be read: Is a directory"):
        StateFile(tmp_path).load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UnusableFile, match="cannot be written to"):
            StateFile(tmp_path / "state.json").load()
    finally:
        tmp_path.chmod(0o700)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path / "state.json")
    file.save(STATE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.save(OTHER)
    assert file.load() == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_mode_and_link_are_kept(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text(content())
    real.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    StateFile(link).save(OTHER)
    assert link.is_symlink()
    assert StateFile(real).load() == OTHER
    assert real.stat().st_mode & 0o777 == 0o640


def option_says(text: str) -> tuple[int, str]:
    @click.command()
    @state_database_option
    def command(state_database: StateDatabase) -> None:
        click.echo(f"path {state_database.path}")

    result = CliRunner().invoke(command, ["--state-database", text], env={"COLUMNS": "300"})
    return result.exit_code, result.output


def test_a_file_that_cannot_be_used_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert option_says(f"file://{path}") == (0, f"path {path}\n")
    path.write_text("{")
    code, output = option_says(f"file://{path}")
    assert code == 2
    assert "is no JSON" in output
    assert option_says("sqlite:///a")[0] == 2


@contextlib.asynccontextmanager
async def keeping(store: Store, path: Path) -> AsyncGenerator[None]:
    task = asyncio.create_task(FileKeeper(store, path, SystemClock()).keep_loop())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def in_file(path: Path) -> BalancerDesiredState | None:
    return StateFile(path).load()


async def version(states: DesiredStates) -> Versioned:
    return await states.read("default")


async def test_the_file_is_taken_where_redis_has_no_state(store: Store, path: Path) -> None:
    path.write_text(content())
    states = DesiredStates(store)
    async with keeping(store, path):
        await wait_until(lambda: states.version("default"))
        found = await version(states)
    assert (found.version, found.state, found.author) == (1, STATE, f"file {path}")


async def test_every_change_is_written_to_it(store: Store, path: Path) -> None:
    states = DesiredStates(store)
    async with keeping(store, path):
        for state in (STATE, OTHER):
            await states.write("default", state, expected=None, author="")
            await wait_until(lambda state=state: in_file(path) == state)
    assert await states.version("default") == 2


async def test_nobody_has_set_a_state(store: Store, path: Path) -> None:
    """Neither is made up: a file with the defaults would be a state at the next start."""
    states = DesiredStates(store)
    keeper = FileKeeper(store, path, SystemClock())
    assert await keeper.keep_once(await version(states))
    assert not path.exists()
    assert await states.version("default") == 0


async def test_redis_wins(store: Store, path: Path) -> None:
    path.write_text(content(OTHER))
    states = DesiredStates(store)
    await states.write("default", STATE, expected=None, author="")
    with capture_logs() as logged:
        async with keeping(store, path):
            await wait_until(lambda: in_file(path) == STATE)
    assert await states.version("default") == 1
    assert any("it is overwritten" in one["event"] for one in logged)


async def test_two_balancers_keep_one_file(store: Store, path: Path) -> None:
    path.write_text(content())
    states = DesiredStates(store)
    async with keeping(store, path), keeping(store, path):
        await wait_until(lambda: states.version("default"))
        await states.write("default", OTHER, expected=None, author="")
        await wait_until(lambda: in_file(path) == OTHER)
    assert await states.version("default") == 2, "of the two one has taken the file"


async def test_what_redis_has_lost_comes_back(store: Store, path: Path) -> None:
    states = DesiredStates(store)
    await states.write("default", STATE, expected=None, author="")
    async with keeping(store, path):
        await wait_until(lambda: in_file(path) == STATE)
    for key in ("desired", "desired:history"):
        await store.redis.delete(f"{store.pool('default').keys.base}:{key}")
    async with keeping(store, path):
        await wait_until(lambda: states.version("default"))
    assert (await version(states)).state == STATE


async def test_a_file_that_cannot_be_written_is_tried_again(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    path = folder / "state.json"
    keeper = FileKeeper(store, path, SystemClock())
    folder.rmdir()
    assert not await keeper.keep_once(Versioned(version=1, state=STATE))
    folder.mkdir()
    assert await keeper.keep_once(Versioned(version=1, state=STATE))
    assert in_file(path) == STATE


async def test_redis_is_away_at_first(path: Path, prefix: str) -> None:
    store = connect("redis://127.0.0.1:1", prefix)
    path.write_text(content())
    try:
        assert not await FileKeeper(store, path, SystemClock()).keep_once(Versioned(version=0))
    finally:
        await store.close()
