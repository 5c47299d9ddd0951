"""The embedded Valkey: a real server, its data and its locks."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from up_harness import is_alive

from paddler.clock import SystemClock
from paddler.store.client import Store, connect
from paddler.testing.waiting import wait_until
from paddler.up import valkey
from paddler.up.output import Output
from paddler.up.problems import CannotStart
from paddler.up.runner import Runner
from paddler.up.valkey import MAX_SOCKET_PATH_BYTES, EmbeddedValkey, choose_socket, reserve

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()


class Running:
    def __init__(self, embedded: EmbeddedValkey, runner: Runner, shown: io.StringIO, store: Store) -> None:
        self.embedded = embedded
        self.runner = runner
        self.shown = shown
        self.store = store

    @property
    def pid(self) -> int:
        return self.runner.pids[valkey.NAME]

    async def restarted(self, old: int) -> None:
        await wait_until(lambda: self.runner.pids.get(valkey.NAME, old) != old, what="server started again")
        await valkey.wait_until_ready(self.embedded.url, CLOCK)


@asynccontextmanager
async def server(state_dir: Path, runtime_dir: Path) -> AsyncGenerator[Running]:
    embedded = await reserve(state_dir, [runtime_dir], CLOCK)
    shown = io.StringIO()
    runner = Runner(
        [embedded.spec("info")],
        environment=os.environ,
        output=Output(shown, is_json=False, names=[valkey.NAME]),
        clock=CLOCK,
        probes={},
    )
    task = asyncio.create_task(runner.run())
    store = connect(embedded.url)
    try:
        await asyncio.wait_for(valkey.wait_until_ready(embedded.url, CLOCK), 10)
        yield Running(embedded, runner, shown, store)
    finally:
        await store.close()
        if not task.done():
            runner.stop()
        await task
        embedded.close()


async def test_it_is_safe_for_a_queue(tmp_path: Path) -> None:
    async with server(tmp_path / "state", tmp_path) as running:
        config = await running.store.redis.config_get("*")
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": "", "port": "0"}
    assert {name: config[name] for name in wanted} == wanted
    assert os.listdir(tmp_path / "state" / "data") == ["appendonlydir"]


async def test_nobody_else_reaches_it(tmp_path: Path) -> None:
    async with server(tmp_path / "state", tmp_path) as running:
        path = Path(running.embedded.url.removeprefix("unix://").partition("?")[0])
        assert path.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "state" / "data").stat().st_mode & 0o777 == 0o700


async def test_a_killed_server_comes_back_with_its_data(tmp_path: Path) -> None:
    async with server(tmp_path / "state", tmp_path) as running:
        await running.store.redis.xadd("queue", {"id": "1"})
        # `everysec` may lose the last second of a machine, but not of a process: the kernel has what was written.
        old = running.pid
        os.kill(old, signal.SIGKILL)
        await running.restarted(old)
        assert await running.store.redis.xlen("queue") == 1
        assert "valkey was killed by SIGKILL; starting it again" in running.shown.getvalue()


async def test_the_next_start_finds_the_queue(tmp_path: Path) -> None:
    async with server(tmp_path / "state", tmp_path) as running:
        await running.store.redis.xadd("queue", {"id": "1"})
    async with server(tmp_path / "state", tmp_path) as running:
        assert await running.store.redis.xlen("queue") == 1


async def test_a_torn_end_of_the_file_is_cut_off(tmp_path: Path) -> None:
    async with server(tmp_path / "state", tmp_path) as running:
        await running.store.redis.set("first", "1")
        await running.store.redis.set("second", "2")
    (log,) = (tmp_path / "state" / "data" / "appendonlydir").glob("*.incr.aof")
    data = log.read_bytes()
    log.write_bytes(data[: data.rindex(b"second") + 3])
    async with server(tmp_path / "state", tmp_path) as running:
        assert await running.store.redis.get("first") == b"1"
        assert await running.store.redis.get("second") is None


async def test_data_that_cannot_be_read_ends_it_with_the_servers_words(tmp_path: Path) -> None:
    async with server(tmp_path / "state", tmp_path) as running:
        await running.store.redis.set("first", "1")
    (log,) = (tmp_path / "state" / "data" / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"*1\r\nnonsense\r\n" + log.read_bytes())
    embedded = await reserve(tmp_path / "state", [tmp_path], CLOCK)
    try:
        output = Output(io.StringIO(), is_json=False, names=[valkey.NAME])
        spec = embedded.spec("info")
        waiting = type(spec)(name="balancer", command=("/bin/false",), awaits=valkey.NAME)
        probe = partial(valkey.wait_until_ready, embedded.url, CLOCK)
        environment = dict(os.environ)
        runner = Runner(
            [spec, waiting], environment=environment, output=output, clock=CLOCK, probes={valkey.NAME: probe}
        )
        failure = await asyncio.wait_for(runner.run(), 20)
    finally:
        embedded.close()
    assert failure is not None
    assert failure.startswith("valkey exited with code 1 again; stopping.")
    assert "Bad file format reading the append only file" in failure


async def test_a_second_up_on_the_same_state_is_told_who_runs(tmp_path: Path) -> None:
    first = await reserve(tmp_path / "state", [tmp_path], CLOCK)
    try:
        with pytest.raises(CannotStart, match=rf"already running as process {os.getpid()} with --state-dir"):
            await reserve(tmp_path / "state", [tmp_path], CLOCK)
    finally:
        first.close()
    (await reserve(tmp_path / "state", [tmp_path], CLOCK)).close()


async def test_after_a_kill_the_next_start_waits_for_the_old_server(tmp_path: Path) -> None:
    async with server(tmp_path / "state", tmp_path) as running:
        pid = running.pid
        os.kill(pid, signal.SIGSTOP)  # a server that takes its time to go
        running.embedded.close()  # what the kernel does for a killed `paddler up`
        waiting = asyncio.create_task(reserve(tmp_path / "state", [tmp_path], CLOCK))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        os.kill(pid, signal.SIGCONT)
        running.runner.stop()
        second = await asyncio.wait_for(waiting, 5)
        assert not is_alive(pid)
        # The fixture closes the descriptors of the first: they now have other numbers' meaning.
        running.embedded._up_lock, running.embedded._data_lock = second._up_lock, second._data_lock


@pytest.mark.parametrize("folder", ["a" * 100, "a folder", "ünï", "100%"])
async def test_a_path_that_fits_no_socket_or_url_moves_the_socket(tmp_path: Path, folder: str) -> None:
    state_dir, runtime_dir = tmp_path / folder, Path(f"/tmp/paddler-test-{os.getpid()}")
    try:
        async with server(state_dir, runtime_dir) as running:
            assert running.embedded.url.startswith(f"unix://{runtime_dir}/")
            assert await running.store.redis.ping()  # pyright: ignore[reportGeneralTypeIssues]  # sync or async
            assert (state_dir / "data" / "appendonlydir").is_dir()
        assert runtime_dir.stat().st_mode & 0o777 == 0o700
    finally:
        for left in runtime_dir.glob("*"):
            left.unlink()
        runtime_dir.rmdir()


async def test_a_runtime_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    state_dir = tmp_path / ("a" * MAX_SOCKET_PATH_BYTES)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(CannotStart, match="too long or too special"):
        choose_socket(state_dir, [open_to_all, link])
    own = tmp_path / "own"
    assert choose_socket(state_dir, [open_to_all, link, own]).parent == own


async def test_an_unusable_state_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match=r"--state-dir .*file: Not a directory"):
        await reserve(tmp_path / "file", [tmp_path], CLOCK)


async def test_why_a_given_server_cannot_be_used(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    trouble = await valkey.trouble_with(f"redis://127.0.0.1:{port}/0")
    assert trouble is not None
    assert "Connect call failed" in trouble or "refused" in trouble
    async with server(tmp_path / "state", tmp_path) as running:
        assert await valkey.trouble_with(running.embedded.url) is None
