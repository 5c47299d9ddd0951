"""Makes `.venv` what `uv.lock` says, with llama.cpp built for this machine's CPU. Python's standard library only.

1. `.venv/paddler-setup` holds a hash of everything that decides what the environment contains: equal, nothing to do.
2. `uv` is taken from PATH, else from `.cache/uv`, where pip puts the pinned version.
3. `uv sync` downloads and builds; its log goes to `.cache/setup.log`, a progress line to the screen. uv keeps a built
   llama.cpp by its settings, so a second clone or a return to earlier settings builds nothing.

`CMAKE_ARGS` in the environment is added to the pinned flags (`CMAKE_ARGS=-DGGML_CUDA=ON make setup`); later flags win.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
LOG = CACHE / "setup.log"
STAMP = ROOT / ".venv" / "paddler-setup"

UV_VERSION = "0.13.9"

# ggml's option and the words of /proc/cpuinfo that it needs. The baseline is on in pyproject.toml and is switched
# off where the CPU lacks it; the extras are added where the CPU has them. AMX is never on: pyproject.toml says why.
BASELINE = {"AVX": "avx", "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "BMI2": "bmi2"}
EXTRAS = {
    "AVX512": "avx512f avx512cd avx512vl avx512dq avx512bw",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
}

REMEDIES = {
    r"No space left on device": "The disk is full: free about 3 GB and run it again.",
    r"Killed signal|cannot allocate memory|out of memory": "Out of memory: CMAKE_BUILD_PARALLEL_LEVEL=1 make setup",
    r"error sending request|dns error|Failed to (fetch|download)": "The package index did not answer: run it again.",
}


class Flags(NamedTuple):
    """How llama.cpp is built. `cmake_args` None keeps those of pyproject.toml."""

    words: str
    extras: tuple[str, ...]
    cmake_args: str | None


def choose_flags(machine: str, cpuinfo: str, pinned: str, added: str) -> Flags:
    """Pure: the flags for a CPU. `pinned` are those of pyproject.toml, `added` those of the environment."""
    if machine not in ("x86_64", "AMD64"):
        return Flags(f"llama.cpp's own defaults for {machine}", (), added)
    lines = [set(line.partition(":")[2].split()) for line in cpuinfo.splitlines() if line.startswith("flags")]
    has = set[str].intersection(*lines) if lines else set[str]()
    missing = [name for name, word in BASELINE.items() if word not in has]
    if missing:
        off = " ".join(f"-DGGML_{name}=OFF" for name in missing)
        words = f"a portable, slower build: this CPU lacks {', '.join(missing)}"
        return Flags(words, (), f"{pinned} {off} {added}".rstrip())
    extras = tuple(name for name, words in EXTRAS.items() if has.issuperset(words.split()))
    extras = extras if "AVX512" in extras else ()
    words = " + ".join(["x86-64-v3", *extras])
    return Flags(words, tuple(f"-DGGML_{name}=ON" for name in extras), f"{pinned} {added}" if added else None)


def read_flags() -> Flags:
    with (ROOT / "pyproject.toml").open("rb") as file:
        pinned: str = tomllib.load(file)["tool"]["uv"]["extra-build-variables"]["llama-cpp-python"]["CMAKE_ARGS"]
    cpuinfo = Path("/proc/cpuinfo")
    added = os.environ.get("CMAKE_ARGS", "").strip()
    return choose_flags(platform.machine(), cpuinfo.read_text() if cpuinfo.exists() else "", pinned, added)


def digest(flags: Flags, python: str) -> str:
    parts: list[bytes] = [(ROOT / name).read_bytes() for name in ("uv.lock", "pyproject.toml", ".ci/setup.py")]
    parts.append(json.dumps([flags, python, sys.version]).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def fail(line: str) -> NoReturn:
    print(f"setup: {line}", file=sys.stderr)
    sys.exit(1)


def check_compilers() -> None:
    """llama.cpp is C and C++; cmake and ninja come from the package index when the machine has none."""
    for variable, names in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        wanted = shlex.split(os.environ.get(variable, "")) or [name for name in names if shutil.which(name)]
        if not wanted or not shutil.which(wanted[0]):
            what = "xcode-select --install" if sys.platform == "darwin" else "apt-get install -y g++"
            fail(f"a C++ compiler is needed to build llama.cpp: {what}")


def find_uv() -> str:
    """A uv at least as new as the pinned one's minor version: older ones ignore `extra-build-variables`."""
    own = CACHE / "uv"
    for path in (shutil.which("uv"), shutil.which(str(own / "bin" / "uv"))):
        if path:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            version = re.search(r"(\d+)\.(\d+)", said)
            pinned = tuple(int(part) for part in UV_VERSION.split(".")[:2])
            if version and (int(version[1]), int(version[2])) >= pinned:
                return path
    print(f"setup: fetching uv {UV_VERSION}", flush=True)
    shutil.rmtree(own, ignore_errors=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
    # Debian splits venv and pip off: either alone is enough.
    if subprocess.run([sys.executable, "-m", "venv", str(own)], capture_output=True, check=False).returncode == 0:
        command = [str(own / "bin" / "python"), *install]
    elif subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        command = [sys.executable, *install, "--target", str(own)]
    else:
        fail("this Python has neither venv nor pip to fetch uv with: apt-get install -y python3-venv")
    if subprocess.run([*command, f"uv=={UV_VERSION}"], check=False).returncode:
        fail("pip could not fetch uv (its words are above).")
    return str(own / "bin" / "uv")


class Progress:
    """One line that is rewritten on a terminal; elsewhere a line for each phase and each tenth of the build."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._start = time.monotonic()
        self._phase = ""
        self._tenth = 0

    def feed(self, line: str) -> None:
        if step := re.match(r"DEBUG \[(\d+)/(\d+)\]", line):
            done, total = int(step[1]), int(step[2])
            self._show("building llama.cpp", f"{done}/{total}", done * 10 // total)
        elif found := re.match(r"Downloading (.+)", line):
            self._show("downloading packages", found[1], self._tenth)
        elif line.startswith("   Building llama-cpp-python"):
            self._show("building llama.cpp", "starting; minutes, but once", 0)

    def _show(self, phase: str, detail: str, tenth: int) -> None:
        text = f"setup: {phase}: {detail}"
        if self._is_terminal:
            seconds = int(time.monotonic() - self._start)
            print(f"\r\033[K{text} ({seconds // 60}:{seconds % 60:02d})", end="", flush=True)
        elif phase != self._phase or tenth > self._tenth:
            print(text, flush=True)
        self._phase, self._tenth = phase, tenth

    def end(self) -> None:
        if self._is_terminal and self._phase:
            print("\r\033[K", end="", flush=True)


def sync(uv: str, flags: Flags, python: str) -> None:
    """Run `uv sync`; on failure print what uv said last and what helps."""
    command = [uv, "sync", "--verbose", "--frozen", "--all-extras", "--python", python]
    if flags.extras:
        # uv keeps the wheel under exactly this string.
        command += ["--config-settings-package", f"llama-cpp-python:cmake.args={';'.join(flags.extras)}"]
    if flags.cmake_args is not None:
        # The value in pyproject.toml beats the environment's, and only another file beats pyproject.toml.
        override = CACHE / "uv.toml"
        variables = f"llama-cpp-python = {{ CMAKE_ARGS = {json.dumps(flags.cmake_args)} }}"
        override.write_text(f"[extra-build-variables]\n{variables}\n")
        command += ["--config-file", str(override)]
    ours = {"UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_TIMEOUT": "180"}
    theirs = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "CMAKE_ARGS")}
    progress = Progress(sys.stdout.isatty())
    with subprocess.Popen(
        command, cwd=ROOT, env=ours | theirs, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        said = follow(process.stderr, progress)
    progress.end()
    if process.returncode:
        own = [line[:300] for line in said if not line.startswith("DEBUG")]
        errors = [line for line in own[:-15] if re.search(r"\berror:|^\s*FAILED", line)]
        text = "\n".join(errors[-15:] + own[-15:])
        remedy = next((words for pattern, words in REMEDIES.items() if re.search(pattern, text)), "")
        print(text, file=sys.stderr)
        fail(f"uv sync failed (whole log: {LOG.relative_to(ROOT)}). {remedy}".rstrip())


def follow(lines: Iterable[str], progress: Progress) -> deque[str]:
    """Log every line, feed it to the progress line, return the last ones."""
    said: deque[str] = deque(maxlen=2000)
    with LOG.open("w") as log:
        for line in lines:
            log.write(line)
            said.append(line.rstrip("\n"))
            progress.feed(said[-1])
    return said


def main() -> None:
    flags = read_flags()
    python = os.path.realpath(sys.executable)
    wanted = digest(flags, python)
    if STAMP.exists() and STAMP.read_text() == wanted:
        print("setup: up to date")
        return
    start = time.monotonic()
    check_compilers()
    CACHE.mkdir(exist_ok=True)
    STAMP.unlink(missing_ok=True)
    uv = find_uv()
    print(f"setup: python {platform.python_version()}, llama.cpp for this CPU: {flags.words}", flush=True)
    sync(uv, flags, python)
    STAMP.write_text(wanted)
    print(f"setup: ready in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
