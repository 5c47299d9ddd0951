"""What a pool is to serve, and how, is set once and outlives every process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from native_harness import management
from paddler_client.agent_desired_model import AgentDesiredModel
from paddler_client.balancer_desired_state import BalancerDesiredState
from paddler_client.inference_parameters import InferenceParameters
from story_harness import open_queue
from up_harness import Up, descendants, is_alive, paddler_up

from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, decode_payload

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

WANTED = BalancerDesiredState(
    model=AgentDesiredModel.local_to_agent("/models/m.gguf"),
    inference_parameters=InferenceParameters(temperature=0.25, enable_embeddings=True),
)


async def temperature(up: Up) -> float:
    """Of a request that says nothing of it, as the queue has it."""
    body = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        answer = await http.post(f"{up.inference_url}/v1/chat/completions", json=body)
    async with open_queue(up.redis_url) as queue:
        request_id = answer.headers["x-request-id"]
        data = await queue.redis.get(f"paddler:{{default}}:payload:{request_id}")
    payload = decode_payload(data)
    assert isinstance(payload, Generate)
    return payload.sampling.temperature


async def stop(up: Up) -> None:
    """As a power cut does."""
    left = descendants(up.process.pid)
    up.process.kill()
    up.process.wait()
    await wait_until(lambda: not any(map(is_alive, left)), timeout_s=20, what="nobody is left")
    (up.folder / "out").unlink()


async def test_it_survives_a_restart_of_everything(tmp_path: Path) -> None:
    """A client of Paddler 4 sets it; everything is killed, Valkey too, and started again: it is there, with its
    history, and requests still get its sampling. The file that the balancer keeps says the same."""
    file = tmp_path / "state.json"
    flags = ("--state-database", f"file://{file}")
    async with paddler_up(tmp_path, *flags) as up:
        async with management(up.management_url) as operator:
            await operator.put_balancer_desired_state(WANTED)
        assert await temperature(up) == 0.25
        await wait_until(lambda: file.exists() and json.loads(file.read_text())["balancer_desired_state"])
        # Valkey writes its log to the disk every second; a process that is killed loses what it has not handed over.
        await stop(up)
    async with paddler_up(tmp_path, *flags) as up:
        async with management(up.management_url) as operator:
            assert await operator.get_balancer_desired_state() == WANTED
        assert await temperature(up) == 0.25
        shown = subprocess.run(
            [sys.executable, "-P", "-m", "paddler", "model", "history", "--json", "--redis-url", up.redis_url],
            capture_output=True,
            check=True,
            timeout=60,
        )
        [version] = json.loads(shown.stdout)
        assert (version["version"], version["balancer_desired_state"]["model"]) == (
            1,
            {"LocalToAgent": "/models/m.gguf"},
        )
    assert json.loads(file.read_text())["balancer_desired_state"] == version["balancer_desired_state"]
