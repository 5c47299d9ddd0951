"""The units by systemd itself, their commands, variables and times by our own commands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from container_files import BIN, DOCKER, PADDLER, Run, parsed
from lacking import lacks

from paddler.store.acl import Role, user_name

FOLDER = DOCKER / "systemd"
UNITS = {"paddler-balancer": Role.BALANCER, "paddler-worker": Role.WORKER, "paddler-agent@a": Role.AGENT}
SPECIFIERS = {"%d": "/run/credentials/x", "%C": "/var/cache", "%i": "a", "%l": "host", "%%": "%"}
REFUSALS = {"2", "78"}
"""What ends for want of better flags (click) or settings (`EX_CONFIG`)."""

units = pytest.mark.parametrize("unit", UNITS)


def text(unit: str) -> str:
    name = re.sub(r"@.*", "@", unit)
    return (FOLDER / f"{name}.service").read_text()


def settings(unit: str) -> dict[str, list[str]]:
    """Every `Name=value` of a unit, specifiers put in."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text(unit), re.MULTILINE):
        found.setdefault(name, []).append(re.sub(r"%.", lambda one: SPECIFIERS[one[0]], value))
    return found


def environment(unit: str) -> dict[str, str]:
    """A unit's own, over that of the file which comes with it."""
    example = re.search(r"-(\w+)", unit)
    assert example is not None
    lines = (FOLDER / f"{example[1]}.env").read_text().splitlines()
    given = [line for line in lines if line and not line.startswith("#")]
    given += [word for value in settings(unit)["Environment"] for word in shlex.split(value)]
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def run_of(unit: str) -> Run:
    (command,) = settings(unit)["ExecStart"]
    program, *arguments = shlex.split(command)
    assert program == PADDLER
    return Run(where=unit, arguments=arguments, environment=environment(unit))


@units
def test_commands_flags_and_variables_are_real(unit: str) -> None:
    assert parsed(run_of(unit))["redis_url"] == "redis://127.0.0.1:6379/0"


@units
def test_each_is_who_it_says_to_redis_and_has_the_password(unit: str) -> None:
    (credential,) = settings(unit)["LoadCredential"]
    name, _, path = credential.partition(":")
    assert environment(unit)["PADDLER_REDIS_USERNAME"] == user_name(UNITS[unit], "default")
    assert environment(unit)["PADDLER_REDIS_PASSWORD_FILE"] == f"/run/credentials/x/{name}"
    assert path.startswith("/etc/paddler/")


@units
def test_a_stop_leaves_time_and_a_refusal_is_final(unit: str) -> None:
    told = settings(unit)
    assert told["KillSignal"] == ["SIGTERM"]
    assert set(told["RestartPreventExitStatus"][0].split()) == REFUSALS
    assert told["Restart"] == ["on-failure"]  # 0 is the end of an agent that was removed
    grace_ms = parsed(run_of(unit))["grace_ms"] if unit == "paddler-agent@a" else 0
    assert int(told["TimeoutStopSec"][0]) * 1000 >= grace_ms + 10_000


def test_an_agent_writes_where_it_may() -> None:
    told = settings("paddler-agent@a")
    assert told["CacheDirectory"] == ["paddler"]
    assert environment("paddler-agent@a")["PADDLER_CACHE_DIR"] == "/var/cache/paddler"


def test_systemd_takes_the_units_and_finds_them_closed(tmp_path: Path) -> None:
    """With the command of this environment in place of the installed one; the drop-in for a GPU, too."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        lacks("systemd-analyze is not installed: apt-get install systemd")
    paths: list[Path] = []
    for unit in (*UNITS, "paddler-agent@gpu"):
        path = tmp_path / f"{unit}.service"
        path.write_text(text(unit).replace(PADDLER, str(BIN / "paddler")))
        paths.append(path)
    drop_in = tmp_path / "paddler-agent@gpu.service.d"
    drop_in.mkdir()
    shutil.copy(FOLDER / "gpu.conf", drop_in)
    verified = subprocess.run([analyze, "verify", "--man=no", *paths], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    # What is left of ten points, by systemd's own reckoning: a unit that says nothing has 9.6.
    closed = [analyze, "security", "--offline=true", "--no-pager", "--threshold=20"]
    for path in paths[: len(UNITS)]:
        told = subprocess.run([*closed, path], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout[-300:]
