"""The workflows by their schema, and what they name held to what there is: nobody runs them here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from container_files import BIN, images, instructions

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))

Json = dict[str, Any]
names = pytest.mark.parametrize("name", NAMES)


def jobs(name: str) -> dict[str, Json]:
    return yaml.safe_load((FOLDER / name).read_text())["jobs"]


def steps(name: str) -> Iterator[Json]:
    for job in jobs(name).values():
        yield from job.get("steps", [])


def scripts(name: str) -> Iterator[str]:
    yield from (step["run"] for step in steps(name) if "run" in step)


def test_they_are_what_the_schema_of_workflows_says() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *(FOLDER / name for name in NAMES)], capture_output=True, text=True, check=False)
    assert NAMES == ["ci.yml", "release.yml"]
    assert done.returncode == 0, done.stdout + done.stderr


@names
def test_actions_of_others_are_pinned_by_their_commit(name: str) -> None:
    for line in (FOLDER / name).read_text().splitlines():
        if used := re.search(r"\buses: (\S+)(.*)", line):
            if used[1].startswith("./"):
                assert (ROOT / used[1]).is_file()
            else:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", used[1]), line
                assert re.fullmatch(r" # v[\d.]+", used[2]), f"no version is said: {line}"


@names
def test_what_steps_call_is_there(name: str) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for script in scripts(name):
        checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "${{" not in script, f"a value goes in by a variable, or it could be a command: {script}"
        assert set(re.findall(r"\bmake ([a-z-]+)", script)) <= verbs
        for path in re.findall(r"(?<!\S)(\.ci/[\w.-]+)", script):
            assert (ROOT / path).is_file(), path
            assert path.endswith(".py") or os.access(ROOT / path, os.X_OK), path


@names
def test_jobs_need_what_there_is_and_may_little(name: str) -> None:
    assert yaml.safe_load((FOLDER / name).read_text())["permissions"] == {"contents": "read"}
    for job in jobs(name).values():
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= set(jobs(name))


def test_every_image_is_built_for_both_processors() -> None:
    released = jobs("release.yml")
    shipped = [stage for stage, image in images().items() if image.entrypoint and image.user and image.copies]
    assert sorted(shipped) == sorted(released["images"]["strategy"]["matrix"]["target"])
    assert shipped
    assert sorted(shipped) == sorted(released["publish-images"]["strategy"]["matrix"]["target"])
    machines = released["images"]["strategy"]["matrix"]["machine"]
    assert [one["arch"] for one in machines] == ["amd64", "arm64"]


def test_base_images_are_named_by_what_the_registry_says(tmp_path: Path) -> None:
    """With a `docker` that knows one digest: there is no registry to be asked here."""
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n[ \"$1 $2 $3\" = 'buildx imagetools inspect' ] && echo sha256:0123\n")
    docker.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run([ROOT / ".ci/base-images"], env=environment, capture_output=True, text=True, check=True)
    bases = [rest for word, rest in instructions() if word == "ARG" and "_IMAGE=" in rest]
    assert said.stdout.splitlines() == [f"{base}@sha256:0123" for base in bases]
    assert len(bases) == 5


def test_nothing_is_published_untested() -> None:
    released = jobs("release.yml")
    for name in ("publish-images", "publish-packages"):
        assert {"test", "packages", "images"} <= set(released[name]["needs"])
    assert set(released["release"]["needs"]) == {"publish-images", "publish-packages"}


CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-12-01

### Added
- Something, [linked](docs/x.md).

## [1.1.0] - 2026-11-01

- Older.

[1.2.0]: https://example.org
"""


def ask_notes(folder: Path, version: str, tag: str) -> subprocess.CompletedProcess[str]:
    (folder / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci/release_notes.py", folder / ".ci")
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    (folder / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    return subprocess.run([sys.executable, script, tag], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("tag", "code", "said"),
    [
        ("v1.2.0", 0, "### Added\n- Something, [linked](docs/x.md).\n"),
        ("v1.1.0", 1, "release_notes: the tag v1.1.0 is not v1.2.0, the version of pyproject.toml\n"),
    ],
)
def test_the_notes_are_the_section_of_the_changelog(tmp_path: Path, tag: str, code: int, said: str) -> None:
    done = ask_notes(tmp_path, "1.2.0", tag)
    assert (done.returncode, done.stdout + done.stderr) == (code, said)


def test_a_version_without_a_section_is_no_release(tmp_path: Path) -> None:
    done = ask_notes(tmp_path, "1.3.0", "v1.3.0")
    assert done.returncode == 1
    assert "no section [1.3.0]" in done.stderr
