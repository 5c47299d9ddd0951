"""The lint really bites: what a layer may not import is refused by `ruff`, and no layer forgets a line."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = sorted(path for top in ("paddler", "api", "workers") for path in (ROOT / top).rglob("ruff.toml"))
ASKS_THE_TIME = ("time.time", "time.monotonic", "time.perf_counter", "time.sleep", "asyncio.sleep", "anyio.sleep")


def banned(config: Path) -> dict[str, object]:
    return tomllib.loads(config.read_text())["lint"]["flake8-tidy-imports"]["banned-api"]


def refusals(code: str, path: str) -> list[str]:
    """The names that TID251 refuses in `code`, were it the file `path`."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID", "--output-format", "json"]
    done = subprocess.run(
        [*command, "--stdin-filename", path, "-"], cwd=ROOT, input=code, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return [found["message"].split("`")[1] for found in json.loads(done.stdout) if found["code"] == "TID251"]


@pytest.mark.parametrize(
    ("path", "code", "refused"),
    [
        ("paddler/new.py", "import api", "api"),
        ("paddler/new.py", "from workers.agent import main", "workers"),
        ("paddler/up/new.py", "from api.serve import command", "api"),
        ("api/new.py", "import workers.agent.main", "workers"),
        ("workers/agent/new.py", "from api import serve", "api"),
        ("workers/agent/new.py", "from llama_cpp import llama_cpp", "llama_cpp"),
        ("workers/agent/new.py", "from workers.agent.binding import declarations", "workers.agent.binding"),
        ("api/new.py", "import llama_cpp", "llama_cpp"),
        ("paddler/wire/new.py", "from paddler import store", "paddler.store"),
        ("paddler/wire/new.py", "from paddler.errors import BufferFull", "paddler.errors"),
        ("paddler/store/new.py", "import paddler.jobs.inbox", "paddler.jobs"),
        ("paddler/store/new.py", "from paddler.routing import chain", "paddler.routing"),
        ("paddler/routing/new.py", "import asyncio", "asyncio"),
        ("paddler/routing/new.py", "from redis.asyncio import Redis", "redis"),
        ("paddler/routing/new.py", "from time import monotonic", "time"),
        ("paddler/jobs/new.py", "import time\ntime.time()", "time.time"),
        ("paddler/store/new.py", "from asyncio import sleep", "asyncio.sleep"),
        ("api/new.py", "import time as t\nt.monotonic()", "time.monotonic"),
        ("workers/agent/new.py", "import asyncio\nnap = asyncio.sleep", "asyncio.sleep"),
        (
            "workers/maintenance/new.py",
            "from datetime import UTC, datetime\ndatetime.now(UTC)",
            "datetime.datetime.now",
        ),
    ],
)
def test_a_forbidden_import_is_refused(path: str, code: str, refused: str) -> None:
    assert refusals(code, path) == [refused]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("paddler/wire/new.py", "from paddler.wire.agent import Generate"),
        ("paddler/jobs/new.py", "from paddler.routing import chain\nfrom paddler.store import keys"),
        ("api/new.py", "from paddler.jobs import inbox"),
        ("paddler/clock.py", "import time\ntime.monotonic()"),
        ("workers/agent/llama.py", "from workers.agent.binding import declarations"),
        ("workers/agent/mtmd.py", "from workers.agent.binding import declarations"),
        ("tests/unit/new.py", "import time\ntime.sleep(1)"),
    ],
)
def test_an_allowed_import_passes(path: str, code: str) -> None:
    assert refusals(code, path) == []


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("paddler/clock.py", ASKS_THE_TIME),
        ("workers/agent/llama.py", ("workers.agent.binding",)),
        ("workers/agent/mtmd.py", ("workers.agent.binding",)),
    ],
)
def test_an_exempt_file_does_only_what_it_is_exempt_for(path: str, allowed: tuple[str, ...]) -> None:
    neighbour = str(Path(path).with_name("neighbour.py"))
    found = set(refusals((ROOT / path).read_text(), neighbour))
    assert found, f"{path} no longer needs its exemption"
    assert found <= set(allowed)


@pytest.mark.parametrize("config", LAYERS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_a_layer_repeats_what_a_nested_table_replaces(config: Path) -> None:
    names = set(banned(config))
    layer = config.parent.relative_to(ROOT).parts
    assert "llama_cpp" in names
    assert {"api", "workers"} - {layer[0]} <= names
    if layer[:2] != ("paddler", "testing"):
        assert "time" in names or set(ASKS_THE_TIME) <= names


def test_wire_is_below_every_module_of_paddler() -> None:
    top = ROOT / "paddler"
    siblings = {path.stem for path in top.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    siblings -= {"wire", "__init__", "__main__"}
    missing = {f"paddler.{name}" for name in siblings} - set(banned(top / "wire/ruff.toml"))
    assert not missing, f"add to paddler/wire/ruff.toml: {missing}"


def test_routing_awaits_nothing() -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    for path in (ROOT / "paddler/routing").rglob("*.py"):
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, waits)], path.name
