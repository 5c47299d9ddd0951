"""Wheel, sdist and editable install work from any directory, and nothing else installs an `api` or `workers`.

Each is installed into an environment of its own that sees every third-party package of .venv through one path line,
so that llama.cpp is not built again (minutes), and nothing of this project: what `paddler` runs there is what was
installed. No package index is asked: hatchling and editables are in .venv, virtualenv brings its own pip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from lacking import lacks

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("paddler", "api", "workers")
COMMANDS = ("balancer", "agent", "worker", "up")

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("packaging")]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Output of a command, in an environment that says nothing about Python paths."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel built from it: what the sdist lacks, the wheel lacks."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("paddler-*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    (path,) = dist.glob("paddler-*.tar.gz")
    return path


@pytest.fixture(scope="module")
def checkout(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files, for an editable install that leaves the real ones alone."""
    folder = tmp_path_factory.mktemp("checkout")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to all that is installed in .venv but this project."""
    folder = tmp_path_factory.mktemp("third_party")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.suffix != ".pth" and not entry.name.lower().startswith(("paddler", "_paddler", "__pycache__")):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def environments() -> dict[str, Path]:
    """What `installed` has made: a random order of tests would make each several times."""
    return {}


@pytest.fixture(params=["wheel", "sdist", "editable"])
def installed(
    request: pytest.FixtureRequest,
    environments: dict[str, Path],
    third_party: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The `bin` folder of an environment with the project installed in one of the three ways."""
    way: str = request.param
    if way in environments:
        return environments[way]
    environment = tmp_path_factory.mktemp(way)
    run(sys.executable, "-m", "virtualenv", "--quiet", "--no-download", environment)
    python = environment / "bin/python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "third_party.pth").write_text(f"{third_party}\n")
    what: Path = request.getfixturevalue("checkout" if way == "editable" else way)
    editable = ["--editable"] if way == "editable" else []
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run(python, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", *offline, *editable, what)
    environments[way] = environment / "bin"
    return environments[way]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory whose own `api`, `workers` and `paddler` break whoever imports them."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('shadowed: {name}')\n")
    return tmp_path


def test_packages_bring_the_panel_and_the_wheel_no_sources_of_it(wheel: Path, sdist: Path) -> None:
    if not (ROOT / "api/panel/dist/index.html").exists():
        lacks("the panel is not built: make panel")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "api/panel/dist/index.html" in names
    assert any(name.startswith("api/panel/dist/assets/") and name.endswith(".js.br") for name in names)
    assert [name for name in names if name.startswith("api/panel/web/")] == []
    with tarfile.open(sdist) as archive:
        packed = [name.partition("/")[2] for name in archive.getnames()]
    assert {"api/panel/dist/index.html", "api/panel/web/src/main.tsx", ".ci/panel.py"} <= set(packed)
    assert [name for name in packed if "node_modules" in name] == []


def test_help_from_elsewhere_names_every_command(installed: Path, elsewhere: Path) -> None:
    said = run(installed / "paddler", "--help", cwd=elsewhere)
    assert [name for name in COMMANDS if name not in said] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_not_shadowed_by_the_working_directory(installed: Path, elsewhere: Path, command: str) -> None:
    assert "--help" in run(installed / "paddler", command, "--help", cwd=elsewhere)


def test_the_packages_come_from_the_install(installed: Path, checkout: Path, tmp_path: Path) -> None:
    code = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})), sep='\\n')"
    for name in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(name).is_relative_to(installed.parent) or Path(name).is_relative_to(checkout)


def test_the_wheel_holds_the_three_packages_their_scripts_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith(("ruff.toml", ".pyc"))]
    sources = {
        str(path.relative_to(ROOT))
        for top in PACKAGES
        for kind in ("*.py", "*.lua")
        for path in (ROOT / top).rglob(kind)
    }
    assert sources
    assert sources - names == set(), "an unanchored .gitignore pattern drops files from the wheel"


def test_the_sdist_holds_what_a_build_and_its_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "uv.lock", ".ci/setup", "tests/conftest.py"} <= names
    assert not [name for name in names if name.startswith((".venv", ".cache"))]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_ships_a_package_of_our_name(name: str) -> None:
    assert set(packages_distributions().get(name, [])) <= {"paddler"}
    site = Path(sysconfig.get_path("purelib"))
    assert not (site / name).exists(), f"{site / name} would shadow this project's {name}"
    assert not (site / f"{name}.py").exists()
