"""This machine: is the build for its CPU, are there cores and memory for an agent, are the ports ours?"""

from __future__ import annotations

import asyncio
import errno
import platform
import socket
import ssl
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from paddler.cores import num_usable_cores
from paddler.doctor.finding import Finding, fail, ok, warn
from paddler.settings import Address

FEATURES = {
    "AVX2": ("avx2",),
    "AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "AMX_INT8": ("amx_int8",),
}
"""What llama.cpp calls it, and what a CPU must have for it."""

REBUILD = "build llama.cpp for this CPU: docs/installation.md names the flags, `make setup` chooses them"
PORT_TIMEOUT_S = 2.0
MIB = 2**20
_ASK = """
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[1])
if not library.ggml_backend_reg_count():  # as workers/agent/llama.py does
    library.ggml_backend_load_all_from_path(os.fsencode(os.path.dirname(sys.argv[1])))
for name in ("llama_version", "llama_print_system_info"):
    function = getattr(library, name)
    function.restype = ctypes.c_char_p
    print(function().decode())
"""


def cpu_build(cpuinfo: str | None = None, told: tuple[int, str] | None = None) -> list[Finding]:
    """`told`: exit code and words of the library; tests pass what other machines say."""
    if told is None:
        library = _library()
        if library is None:
            return [warn("llama.cpp", "not installed here", "agents need it: pip install llama-cpp-python")]
        # In a child: a build for another CPU ends with SIGILL.
        asked = subprocess.run([sys.executable, "-I", "-c", _ASK, str(library)], capture_output=True, check=False)
        told = asked.returncode, asked.stdout.decode("utf-8", "replace")
    code, words = told
    if code:
        return [fail("llama.cpp", f"the library cannot be used here (code {code})", REBUILD)]
    version, _, rest = words.partition("\n")
    built = {part.split("=")[0].replace("CPU :", "").strip() for part in rest.split("|") if "= 1" in part}
    found = [ok("llama.cpp", f"{version}, built for {', '.join(sorted(built & set(FEATURES))) or 'any CPU'}")]
    has = _cpu_flags(_read(Path("/proc/cpuinfo")) if cpuinfo is None else cpuinfo)
    if platform.machine() in ("x86_64", "AMD64") and has:
        found += [one for name, words in FEATURES.items() if (one := _feature(name, set(words) <= has, name in built))]
    return found


def _feature(name: str, has: bool, is_built: bool) -> Finding | None:
    if is_built and not has:
        return fail("cpu", f"llama.cpp is built for {name}, which this CPU has not: agents will crash", REBUILD)
    if name == "AMX_INT8" and is_built:
        said = "llama.cpp is built with AMX, as it is without CMAKE_ARGS: by gcc, it ends at the first decode"
        return warn("cpu", said, "build it anew with -DGGML_NATIVE=OFF: docs/installation.md")
    if name == "AMX_INT8" and has:
        return ok("cpu", "has AMX, which is left out on purpose: gcc's code for it crashes (llama.cpp PR 26954)")
    if has and not is_built:
        return warn("cpu", f"this CPU has {name}, and llama.cpp is built without it: it could be faster", REBUILD)
    return None


def threads(wanted: int | None, usable: int | None = None) -> Finding:
    """`usable`: cores by affinity and the quota of the cgroup."""
    cores = num_usable_cores() if usable is None else usable
    if wanted is not None and wanted > cores:
        return warn(
            "threads",
            f"--threads {wanted}, but this process may use {cores} cores",
            f"--threads {cores}: threads beyond that wait for each other",
        )
    return ok("threads", f"{cores} cores may be used" + (f", {wanted} wanted" if wanted else ""))


def memory(root: Path = Path("/")) -> tuple[Finding, int | None]:
    """And how many bytes are left for an agent; None if that cannot be told."""
    free = _meminfo(_read(root / "proc/meminfo")).get("MemAvailable")
    limit, used = _cgroup(root)
    if limit is None:
        said = "unknown" if free is None else f"{free // MIB} MiB available, no limit by a cgroup"
        return ok("memory", said), free
    left = max(0, limit - used)
    available = left if free is None else min(left, free)
    said = f"{left // MIB} MiB left of the cgroup's {limit // MIB} MiB"
    if left < limit // 20:
        remedy = "raise the container's memory limit: beyond it the kernel ends the process"
        return warn("memory", said, remedy), available
    return ok("memory", said), available


def _cgroup(root: Path) -> tuple[int | None, int]:
    """Limit and what counts against it, without what the kernel gives back at once (files that were read)."""
    for folder, limit_name, used_name, cached in (
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _read(root / folder / limit_name), _read(root / folder / used_name)
        if limit.isdigit() and int(limit) < 1 << 60:
            fields = dict(line.split()[:2] for line in _read(root / folder / "memory.stat").splitlines() if line)
            return int(limit), max(0, int(used or 0) - int(fields.get(cached, 0)))
    return None, 0


async def service(flag: str, address: Address, cert: Path | None = None) -> Finding:
    """Its port is free, or Paddler answers there. One that wants a certificate of its clients is known by its own."""
    try:
        with socket.create_server((address.host, address.port)):
            return ok(flag, f"{address} is free")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            why = error.strerror or str(error)
            return fail(flag, f"{address} cannot be bound: {why}", "name an address of this machine, 0.0.0.0 is all")
    for url in (address.url, address.url.replace("http:", "https:", 1)):
        if await asyncio.to_thread(_is_paddler, url):
            return ok(flag, f"Paddler answers at {url}")
    if cert is not None and await asyncio.to_thread(_shows, address, cert):
        return ok(flag, f"{address} shows our certificate, and wants one of its clients")
    return fail(
        flag,
        f"another program listens at {address}",
        f"stop it, or give the balancer another address with {flag}",
    )


def _is_paddler(url: str) -> bool:
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=PORT_TIMEOUT_S, trust_env=False, verify=False) as client:
            health = client.get("/health")
            return health.text == "OK" and "paddler" in client.get("/openapi.json").text[:2000].lower()
    except httpx.HTTPError:
        return False


def _shows(address: Address, cert: Path) -> bool:
    host = address.url.removeprefix("http://").rpartition(":")[0].strip("[]")
    try:
        shown = ssl.get_server_certificate((host, address.port), timeout=PORT_TIMEOUT_S)
        return _first_certificate(shown) == _first_certificate(cert.read_text())
    except (OSError, ValueError):
        return False


def _first_certificate(pem: str) -> bytes:
    """Raises `ValueError`."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    at = pem.index(begin)
    return ssl.PEM_cert_to_DER_cert(pem[at : pem.index(end, at) + len(end)])


def _library() -> Path | None:
    try:
        binding = metadata.distribution("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return None
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return Path(str(binding.locate_file(f"llama_cpp/lib/libllama.{suffix}")))


def _cpu_flags(cpuinfo: str) -> set[str]:
    lines = [set(line.partition(":")[2].split()) for line in cpuinfo.splitlines() if line.startswith("flags")]
    return set[str].intersection(*lines) if lines else set()


def _meminfo(text: str) -> dict[str, int]:
    fields = [line.replace(":", "").split() for line in text.splitlines()]
    return {one[0]: int(one[1]) * 1024 for one in fields if len(one) > 1 and one[1].isdigit()}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
