"""`paddler up` as a whole: the real commands, with the scripted engine in place of a model."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from lacking import lacks
from up_harness import Up, descendants, is_alive, paddler_up

from paddler.store.client import connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.xdist_group("up")]

STOP_S = 5.0


def paste(command: str) -> dict[str, object]:
    """What a shell makes of a command on the screen."""
    if not shutil.which("curl"):
        lacks("curl is not installed: apt-get install curl")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def words(up: Up) -> str:
    """The log without the frames and line breaks of a terminal."""
    return " ".join(up.log.replace("│", " ").split())


def answers(up: Up) -> bool:
    done = subprocess.run(["sh", "-c", f"{up.curl} -s -f"], capture_output=True, check=False, timeout=30)
    return done.returncode == 0


async def test_the_tour(tmp_path: Path) -> None:
    """One command, a pasted curl, every child killed once, Ctrl-C: one start, as each takes seconds."""
    async with paddler_up(tmp_path) as up:
        assert up.pids().keys() == {"valkey", "balancer", "agent-1", "worker"}
        assert paste(up.curl)["object"] == "chat.completion"

        second = Up(tmp_path)
        assert second.process.wait(20) == 1
        assert f"already running as process {up.process.pid} with --state-dir" in words(up)

        for name, old in up.pids().items():
            os.kill(old, signal.SIGKILL)
            await wait_until(lambda name=name, old=old: up.pids().get(name, old) != old, what=f"{name} started again")
            assert f"{name} was killed by SIGKILL; starting it again in" in words(up)
            await wait_until(lambda: answers(up), timeout_s=30, poll_s=0.2, what=f"answers after {name} was killed")

        left = descendants(up.process.pid)
        assert len(left) == 4
        began = time.monotonic()
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(STOP_S) == 0
        assert time.monotonic() - began < STOP_S
        assert not any(map(is_alive, left))
        assert "killing" not in up.log


async def test_a_kill_leaves_no_orphan_and_the_next_start_has_the_queue(tmp_path: Path) -> None:
    async with paddler_up(tmp_path) as up:
        store = connect(up.redis_url)
        await store.redis.xadd("kept", {"id": "1"})
        await store.close()
        left = descendants(up.process.pid)
        up.process.kill()
        await wait_until(lambda: not any(map(is_alive, left)), timeout_s=STOP_S, what="no orphan")
    (tmp_path / "out").unlink()
    async with paddler_up(tmp_path, "--agents", "0", "--buffered-request-timeout", "30000") as up:
        store = connect(up.redis_url)
        assert await store.redis.xlen("kept") == 1
        await store.close()
        # A request sent while no agent exists waits, and the command on the screen starts one.
        waiting = subprocess.Popen(["sh", "-c", f"{up.curl} -s"], stdout=subprocess.PIPE)
        line = next(line for line in up.shown.splitlines() if " agent --name " in line)
        agent = subprocess.Popen(shlex.split(line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answer, _ = waiting.communicate(timeout=30)
            assert json.loads(answer)["object"] == "chat.completion"
        finally:
            agent.terminate()
            agent.wait(10)


async def test_a_given_redis_is_used_and_left_alone(tmp_path: Path, valkey: RedisServer, prefix: str) -> None:
    async with paddler_up(tmp_path, "--redis-url", valkey.url, "--redis-prefix", prefix, "--agents", "2") as up:
        assert up.pids().keys() == {"balancer", "agent-1", "agent-2", "worker"}
        assert not (tmp_path / "state").exists()
        assert paste(up.curl)["object"] == "chat.completion"
        up.process.terminate()
        assert up.process.wait(STOP_S) == 0
    assert valkey.process is not None
    assert valkey.process.poll() is None


@pytest.mark.parametrize(
    "flag", ["--inference-addr", "--management-addr", "--compat-openai-addr", "--web-admin-panel-addr"]
)
async def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        up = Up(tmp_path, flag, address)
        assert up.process.wait(20) == 1
    text = words(up)
    assert f"{flag} {address}: another program listens there." in text
    assert not list((tmp_path / "state" / "data").iterdir())


async def test_an_unreachable_redis_is_said(tmp_path: Path) -> None:
    up = Up(tmp_path, "--redis-url", "redis://:secret@127.0.0.1:1/0")
    assert up.process.wait(30) == 1
    text = words(up)
    assert "--redis-url redis://:***@127.0.0.1:1/0 cannot be used:" in text
    assert "secret" not in up.log


async def test_a_range_of_agents_ends_with_everything_else(tmp_path: Path) -> None:
    """They are children of the autoscaler: Ctrl-C ends them, and so does a kill of `paddler up`."""
    async with paddler_up(tmp_path, "--agents", "1..2") as up:
        assert up.pids().keys() == {"valkey", "balancer", "autoscale", "worker"}
        assert "1 to 2 with 4 slots each" in up.shown
        assert paste(up.curl)["object"] == "chat.completion"
        left = descendants(up.process.pid)
        assert len(left) == 5
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(STOP_S) == 0
        assert not any(map(is_alive, left))
        assert "killing" not in up.log
    (tmp_path / "out").unlink()
    async with paddler_up(tmp_path, "--agents", "1..2") as up:
        left = descendants(up.process.pid)
        assert len(left) == 5
        up.process.kill()
        await wait_until(lambda: not any(map(is_alive, left)), timeout_s=STOP_S, what="no orphan")
