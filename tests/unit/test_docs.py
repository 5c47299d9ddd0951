"""What a document names exists: files, flags, variables, verbs of the Makefile, relative links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "SECURITY.md",
    *(
        path
        for top in ("paddler", "api", "workers", "docs")
        for path in (ROOT / top).rglob("*.md")
        if "node_modules" not in path.parts
    ),
]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
OTHER_PROGRAMS = {
    *("--cacert", "--help", "--randomly-seed"),
    *("--appendonly", "--dbfilename", "--dir", "--maxmemory", "--maxmemory-policy", "--rdb", "--requirepass", "--save"),
    *("--statsd", "--web"),
    *("--alarm-name", "--comparison-operator", "--dimensions", "--evaluation-periods", "--metric-name", "--namespace"),
    *("--period", "--statistic", "--threshold", "--treat-missing-data"),
    *(
        "--find-links",
        "--force",
        "--no-cache-dir",
        "--no-isolation",
        "--overrides",
        "--pip-args",
        "--reinstall-package",
        "--wheel",
    ),
    *("--build", "--build-arg", "--detach", "--format", "--from-file", "--output", "--rm", "--scale", "--target"),
}


THEIRS = "docs/migrating-from-llama-server.md"
"""Its tables have another program's flags and routes in their first column."""


def text(name: str) -> str:
    found = (ROOT / name).read_text()
    return re.sub(r"^\|[^|]*\|", "|", found, flags=re.MULTILINE) if name == THEIRS else found


def source() -> str:
    tops = ("paddler", "api", "workers", "tests/bench")
    return "\n".join(path.read_text() for top in tops for path in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_files_named_in_code_marks_exist(name: str) -> None:
    """A path is looked for from the root and the document's folder; a bare name may be anywhere in the packages."""
    quoted = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|lua|md|toml|lock)|(?:\.?[\w-]+/)+[\w.-]*)`", text(name))
    files = {path.name for top in ("paddler", "api", "workers") for path in (ROOT / top).rglob("*.*")}
    starts = (ROOT, (ROOT / name).parent)
    assert [path for path in quoted if path not in files and not any((top / path).exists() for top in starts)] == []


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_lead_somewhere(name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text(name)) if "://" not in link]
    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_flags_and_variables_are_real(name: str) -> None:
    known = source()
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text(name))) - OTHER_PROGRAMS
    assert [flag for flag in sorted(flags) if flag not in known] == []
    variables = {name.removeprefix("PADDLER_") for name in re.findall(r"PADDLER_[A-Z_]+", text(name))}
    assert [name for name in sorted(variables) if f"--{name.lower().replace('_', '-')}" not in known] == []


@pytest.mark.parametrize(("name", "top"), [("ARCHITECTURE.md", "paddler"), ("CONTRIBUTING.md", "tests")])
def test_every_folder_is_told_of(name: str, top: str) -> None:
    folders = {path.name for path in (ROOT / top).iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert {one for one in folders - {"support"} if f"`{top}/{one}`" not in text(name)} == set()


@pytest.mark.parametrize("name", NAMES)
def test_verbs_of_make_are_in_the_makefile(name: str) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    assert verbs
    assert set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)`?", " ".join(re.findall(r"`[^`\n]+`", text(name))))) <= verbs
