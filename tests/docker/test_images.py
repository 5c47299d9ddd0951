"""The Dockerfile by hadolint and by what an image must be; no engine is needed, and so none builds it here."""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from container_files import BIN, DOCKER, PADDLER, ROOT, Run, images, instructions, parsed, parsed_check, run

TARGETS = ("balancer", "worker", "agent", "agent-cuda")


def test_hadolint_finds_nothing() -> None:
    assert run(BIN / "hadolint", "docker/Dockerfile", check=False).stdout == ""


def test_every_base_is_an_argument_that_a_release_can_pin_by_its_digest() -> None:
    arguments = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG" and "=" in rest}
    for image in images().values():
        of_argument = re.fullmatch(r"\$\{(\w+)\}", image.base)
        assert of_argument[1] in arguments if of_argument else image.base in images(), image.base


def test_the_last_stage_is_the_agent() -> None:
    assert list(images())[-1] == "agent"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_one_process_as_nobody_and_says_whether_it_lives(target: str) -> None:
    image = images()[target]
    assert image.entrypoint == [PADDLER], "in exec form: signals reach the process itself"
    assert image.user == "10001:10001"
    role = target.partition("-")[0]
    assert image.command == [role]
    assert image.health == [PADDLER, "probe", role]
    arguments = [*image.command, *(("--slots", "4") if role == "agent" else ())]
    ran = Run(where=target, arguments=arguments, environment=image.environment)
    parsed(ran)
    parsed_check(image.health, ran)


def test_a_balancer_listens_where_its_image_says() -> None:
    image = images()["balancer"]
    values = parsed(Run(where="balancer", arguments=image.command, environment=image.environment))
    names = ("management_addr", "inference_addr", "compat_openai_addr", "web_admin_panel_addr")
    ports = [values[name].port for name in names]
    (exposed,) = (rest.split() for word, rest in instructions() if word == "EXPOSE")
    assert sorted(exposed) == sorted(map(str, ports))
    assert {values[name].host for name in names} == {"0.0.0.0"}


@pytest.mark.parametrize("target", ["agent", "agent-cuda"])
def test_an_agent_keeps_models_in_its_volume(target: str) -> None:
    (volume,) = (rest for word, rest in instructions() if word == "VOLUME")
    environment = images()[target].environment
    assert f'["{environment["PADDLER_CACHE_DIR"]}"]' == volume
    assert environment["HF_HOME"].startswith(environment["PADDLER_CACHE_DIR"])


def test_balancer_and_worker_have_no_llama() -> None:
    syncs = [rest for word, rest in instructions() if word == "RUN" and "uv sync" in rest]
    without = [one for one in syncs if "--no-install-package llama-cpp-python" in one]
    assert len(without) == 2
    assert all("--config-file docker/build/llama-" in one for one in syncs if one not in without)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert [name for name in allowed if not (ROOT / name).exists()] == []
    copied = [source for image in images().values() for copy in image.copies for source in _sources(copy)]
    assert copied
    for source in copied:
        assert any(source == name or source.startswith(f"{name}/") for name in allowed), source
        assert (ROOT / source).exists(), source


def _sources(copy: list[str]) -> list[str]:
    if any(part.startswith("--from=") for part in copy):
        return []
    return [part.rstrip("/") for part in copy[:-1] if not part.startswith("--")]


def test_uv_is_that_of_the_project() -> None:
    pinned = re.search(r'^UV_VERSION = "(.+)"$', (ROOT / ".ci/setup.py").read_text(), re.MULTILINE)
    assert pinned
    text = (DOCKER / "build/uv.txt").read_text()
    assert f"uv=={pinned[1]} " in text
    assert text.count("--hash=sha256:") == 2, "x86-64 and arm64"


@pytest.mark.parametrize("name", ["llama-cpu.toml", "llama-cuda.toml"])
def test_llama_is_built_for_every_cpu_and_finds_its_backends(name: str) -> None:
    build = tomllib.loads((DOCKER / "build" / name).read_text())["extra-build-variables"]["llama-cpp-python"]
    flags = dict(part.removeprefix("-D").split("=", 1) for part in shlex.split(build["CMAKE_ARGS"]))
    assert (flags["GGML_NATIVE"], flags["GGML_BACKEND_DL"], flags["GGML_CPU_ALL_VARIANTS"]) == ("OFF", "ON", "ON")
    # Where `workers/agent/llama.py` looks, and what is in a folder is found by its neighbours.
    assert flags["CMAKE_INSTALL_BINDIR"] == flags["CMAKE_INSTALL_LIBDIR"] == "llama_cpp/lib"
    assert flags["CMAKE_INSTALL_RPATH"] == "$ORIGIN"
    assert ("GGML_CUDA" in flags) == (name == "llama-cuda.toml")


def test_the_variant_that_crashes_is_left_out() -> None:
    """pyproject.toml says why AMX is never on."""
    assert 'rm -f "$lib/libggml-cpu-sapphirerapids.so"' in (DOCKER / "build/finish-llama").read_text()
    builds = [rest for word, rest in instructions() if word == "RUN" and "docker/build/llama-c" in rest]
    first = [rest for rest in builds if "--no-install-project" in rest]
    assert len(first) == 2
    assert all("finish-llama" in one for one in first)


def test_scripts_are_shell(tmp_path: Path) -> None:
    for name, shell in (("build/finish-llama", "bash"), ("setup", "sh")):
        run(shell, "-n", DOCKER / name)
        assert (DOCKER / name).stat().st_mode & 0o111


def test_no_file_is_meant_for_one_machine() -> None:
    """`docker/secrets` is made by `docker/setup` and never committed."""
    tracked = run("git", "ls-files", "docker").stdout.splitlines()
    assert tracked
    assert fnmatch.filter(tracked, "docker/secrets/*") == []
