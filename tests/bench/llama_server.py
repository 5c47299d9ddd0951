"""The peer: llama.cpp's own server, built from the tree that the binding was built from, with the same flags.

It is built once, into `.cache/llama-server` (minutes), and run with the libraries of the binding itself, so that both
sides compute with the same `libllama` and `libggml`. `PADDLER_LLAMA_SERVER` names another binary instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tomllib
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx

from tests.bench.queue_fleet import until

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "llama-server"
PACKAGE = "llama-cpp-python"
OFF = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI")
START_S = 120.0


def find_binary() -> Path:
    """The server, which is built when it is not there yet. Raises `SystemExit` with what is missing."""
    if named := os.environ.get("PADDLER_LLAMA_SERVER"):
        if not os.access(named, os.X_OK):
            raise SystemExit(f"PADDLER_LLAMA_SERVER names {named}, which is no program")
        return Path(named)
    flags = _flags()
    version, url, sha256 = _sdist()
    build = CACHE / f"{version}-{hashlib.sha256(' '.join(flags).encode()).hexdigest()[:12]}"
    binary = build / "bin" / "llama-server"
    if not binary.exists():
        _build(_source(version, url, sha256), build, flags)
    return binary


def libraries() -> Path:
    """Where the binding has its `libllama` and `libggml`."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "lib"


@contextlib.contextmanager
def serving(binary: Path, model: Path, *, slots: int, context_size: int, threads: int, log: Path) -> Generator[int]:
    """Run it until the context ends; gives its port. Its cells are shared by the slots, as ours are."""
    port = free_port()
    where = ["--model", model, "--host", "127.0.0.1", "--port", port]
    sizes = ["--parallel", slots, "--ctx-size", context_size, "--threads", threads, "--threads-batch", threads]
    command = [str(word) for word in (binary, *where, *sizes, "--kv-unified")]
    environment = os.environ | {"LD_LIBRARY_PATH": f"{libraries()}:{binary.parent}"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment
        )
    try:
        until(lambda: _is_ready(port, process, log), "llama-server is ready", START_S, poll_s=0.1)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise SystemExit(f"llama-server ended:\n{log.read_text(errors='replace')[-2000:]}")
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _flags() -> list[str]:
    """What `.ci/setup` built the binding with."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / ".ci" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    setup: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    flags = setup.read_flags()
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["extra-build-variables"][PACKAGE]
    return [*(flags.cmake_args or pinned["CMAKE_ARGS"]).split(), *flags.extras]


def _sdist() -> tuple[str, str, str]:
    """Version, address and SHA-256 of the binding's source, as locked."""
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        if package["name"] == PACKAGE:
            sdist = package["sdist"]
            return package["version"], sdist["url"], sdist["hash"].removeprefix("sha256:")
    raise SystemExit(f"uv.lock has no {PACKAGE}")


def _source(version: str, url: str, sha256: str) -> Path:
    source = CACHE / f"source-{version}"
    tree = source / f"llama_cpp_python-{version}" / "vendor" / "llama.cpp"
    if tree.exists():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"bench: fetching the source of {PACKAGE} {version}", flush=True)
    archive = CACHE / f"{version}.tar.gz"
    with urllib.request.urlopen(url) as answer, archive.open("wb") as file:
        shutil.copyfileobj(answer, file)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        archive.unlink()
        raise SystemExit(f"the source of {PACKAGE} {version} is not what uv.lock says: run it again")
    unpacked = CACHE / f"unpacking-{os.getpid()}"
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    unpacked.rename(source)
    archive.unlink()
    return tree


def _build(source: Path, build: Path, flags: list[str]) -> None:
    print("bench: building llama-server; minutes, but once", flush=True)
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(
            f"{' and '.join(missing)} must be installed to build llama-server: apt-get install -y cmake ninja-build"
        )
    options = [*flags, "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_OPENSSL=OFF"]
    options += [f"-D{name}=OFF" for name in OFF]
    subprocess.run(["cmake", "-G", "Ninja", "-S", source, "-B", build, *options], check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen(
        ["cmake", "--build", str(build), "--target", "llama-server"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        tenth = 0
        for line in process.stdout:
            step = re.match(r"\[(\d+)/(\d+)\]", line)
            if step and (now := int(step[1]) * 10 // int(step[2])) > tenth:
                tenth = now
                print(f"bench: building llama-server: {step[1]}/{step[2]}", flush=True)
    if process.returncode:
        raise SystemExit("llama-server could not be built (the compiler's words are above)")
