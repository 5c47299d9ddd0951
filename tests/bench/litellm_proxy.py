"""The peer of the HTTP benchmark: LiteLLM's proxy, in a virtual environment of its own below `.cache`.

Its dependencies exclude some of ours, so it is not in `uv.lock`: `litellm.txt` beside this file pins all of them
(`uv pip compile --universal --python-version 3.11 -o tests/bench/litellm.txt tests/bench/litellm.in`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx

from tests.bench.llama_server import free_port
from tests.bench.queue_fleet import until

ROOT = Path(__file__).resolve().parents[2]
PINNED = Path(__file__).with_name("litellm.txt")
CACHE = ROOT / ".cache" / "litellm"
START_S = 120.0


def find_proxy() -> Path:
    """The program, which is installed when it is not there yet."""
    digest = hashlib.sha256(PINNED.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / digest
    program = folder / "bin" / "litellm"
    if not program.exists():
        print("bench: installing LiteLLM's proxy into .cache", file=sys.stderr, flush=True)
        uv = _setup().find_uv()
        python = folder / "bin" / "python"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", PINNED], check=True, cwd=CACHE)
    return program


@contextlib.contextmanager
def litellm(program: Path, upstream: int, folder: Path) -> Generator[tuple[int, int]]:
    """Run it with one worker before a server of OpenAI's API on port `upstream`; gives its port and process id."""
    port = free_port()
    model = {"model": "openai/default", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "default", "litellm_params": model}],
                "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
                "litellm_settings": {"telemetry": False, "num_retries": 0, "request_timeout": 60},
            }
        )
    )
    log = folder / "litellm.log"
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
    command = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | quiet, cwd=folder
        )
    try:
        until(lambda: _is_ready(port, process, log), "LiteLLM's proxy is ready", START_S, poll_s=0.2)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise SystemExit(f"LiteLLM's proxy ended:\n{log.read_text(errors='replace')[-2000:]}")
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/liveliness", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _setup() -> Any:
    spec = importlib.util.spec_from_file_location("setup", ROOT / ".ci" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    setup: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    return setup
