"""The shape of the code: file sizes, scripts beside functions, the drawn error tree, what pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import paddler
from paddler import errors
from paddler.store.scripts import PRELUDE

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 500
SOURCES = ("paddler", "api", "workers", "tests", "website", "docker", ".ci")
LUA = sorted((ROOT / "paddler/store").rglob("*.lua"))
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources() -> list[Path]:
    found: list[Path] = []
    for folder in SOURCES:
        for suffix in ("*.py", "*.lua", "*.ts", "*.tsx", "*.css", "*.sh"):
            found += (ROOT / folder).rglob(suffix)
    return [path for path in found if not {"node_modules", "dist"} & set(path.parts)]


def test_no_file_is_longer_than_500_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_every_folder_of_tests_is_a_plain_folder() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_script_opens_with_its_key_map(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("--"))])
    assert re.search(r"\bKeys:|\bKey map:", header), f"{path.name}: the first comment names the keys it touches"
    if path.stem not in PRELUDE:
        assert "ARGV" in header, f"{path.name}: the first comment names its arguments"


@pytest.mark.parametrize("path", [path for path in LUA if path.stem not in PRELUDE], ids=lambda path: path.stem)
def test_a_script_has_a_typed_function_of_its_name(path: Path) -> None:
    functions = {
        node.name: node
        for module in (ROOT / "paddler/store").glob("scripts*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert path.stem in functions, f"paddler/store/scripts*.py has no `def {path.stem}(`"
    assert functions[path.stem].returns is not None


def test_the_drawn_error_tree_is_the_real_one() -> None:
    drawn: dict[str, tuple[str, str, str]] = {}
    parents = ["PaddlerError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"((?:│   |    )*)[├└]── (\w+)\s+(?:(\d{3}) (\w+))?", line):
            depth = len(found[1]) // 4
            parents[depth + 1 :] = [found[2]]
            drawn[found[2]] = (parents[depth], found[3] or "", found[4] or "")

    real: dict[str, tuple[str, str, str]] = {}
    todo: list[type[errors.PaddlerError]] = [errors.PaddlerError]
    while todo:
        parent = todo.pop()
        children = [child for child in parent.__subclasses__() if child.__module__ == errors.__name__]
        todo += children
        for child in children:
            real[child.__name__] = (parent.__name__, str(child.status) if child.code else "", child.code)
    assert drawn == real


def test_every_error_says_what_it_means_in_one_line() -> None:
    for error in errors.leaves().values():
        assert error.__doc__, error
        assert len(error.__doc__.strip().splitlines()) == 1, error


def test_the_version_is_said_once() -> None:
    assert paddler.__version__ == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("name", sorted(PYPROJECT["project"]["entry-points"]["paddler.commands"]))
def test_a_command_is_installed_and_starts_where_pyproject_says(name: str) -> None:
    declared: str = PYPROJECT["project"]["entry-points"]["paddler.commands"][name]
    (installed,) = (entry for entry in entry_points(group="paddler.commands") if entry.name == name)
    assert installed.value == declared, "run `make setup`: the installed entry points are older than pyproject.toml"
    module, _, attribute = declared.partition(":")
    assert callable(getattr(import_module(module), attribute))


def test_what_uv_is_told_about_the_binding_is_the_locked_version() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {package["name"]: package.get("version") for package in lock["package"]}
    for entry in PYPROJECT["tool"]["uv"]["dependency-metadata"]:
        assert locked[entry["name"]] == entry["version"], "dependency-metadata in pyproject.toml names another version"
