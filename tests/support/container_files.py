"""What `docker/` says, read by the programs that are meant to read it, and held to the commands' own flags."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import click
import yaml
from click.core import ParameterSource
from msgspec import Struct

from paddler.cli import cli
from paddler.settings import ENV_PREFIX

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent
PADDLER = "/opt/paddler/bin/paddler"

Json = dict[str, Any]
"""What a YAML or JSON file says."""


class Image(Struct, frozen=True, kw_only=True):
    """A stage of the Dockerfile, with what it has from those below it."""

    stage: str
    base: str
    environment: dict[str, str]
    entrypoint: list[str]
    command: list[str]
    health: list[str]
    user: str
    copies: list[list[str]]


class Run(Struct, frozen=True, kw_only=True):
    """A container of ours: what it runs in which environment. `where` is for messages."""

    where: str
    arguments: list[str]
    environment: dict[str, str]

    @property
    def name(self) -> str:
        return self.arguments[0]


def instructions() -> Iterator[tuple[str, str]]:
    """Of the Dockerfile: the word and the rest, lines that go on joined, comments left out."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, rest.strip()


@cache
def images() -> dict[str, Image]:
    found: dict[str, Image] = {}
    stage: Json = {}

    def close() -> None:
        if stage:
            found[stage["stage"]] = Image(**stage)

    for word, rest in instructions():
        if word == "FROM":
            close()
            base, _, name = rest.partition(" AS ")
            below = found.get(base)
            stage = {"stage": name, "base": base, "environment": dict(below.environment) if below else {}, "copies": []}
            for field in ("entrypoint", "command", "health"):
                stage[field] = list(getattr(below, field)) if below else []
            stage["user"] = below.user if below else ""
        elif word == "ENV":
            stage["environment"] |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word in ("ENTRYPOINT", "CMD"):
            stage["entrypoint" if word == "ENTRYPOINT" else "command"] = json.loads(rest)
        elif word == "HEALTHCHECK":
            stage["health"] = json.loads(rest.partition(" CMD ")[2])
        elif word == "USER":
            stage["user"] = rest
        elif word == "COPY":
            stage["copies"].append(rest.split())
    close()
    return found


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr or done.stdout
    return done


@cache
def compose(*files: str) -> Json:
    """The files merged by Docker Compose, which holds them to its schema. Without `files` the quick start alone."""
    named = [part for name in ("compose.yaml", *files) for part in ("-f", f"docker/{name}")]
    every = [part for profile in ("operator", "smoke") for part in ("--profile", profile)]
    return json.loads(run(BIN / "docker-compose", *named, *every, "config", "--format", "json").stdout)


@cache
def rendered(variant: str) -> list[Json]:
    """A variant of the Kubernetes manifests, by `kubectl kustomize`."""
    return documents(run(BIN / "kubectl", "kustomize", DOCKER / "k8s" / variant).stdout)


def documents(text: str) -> list[Json]:
    return [cast(Json, one) for one in yaml.safe_load_all(text) if one]


def service_run(name: str, service: Json) -> Run | None:
    """What a service of Compose runs of ours; None for other people's programs."""
    image = _image_of(service.get("image", ""))
    if image is None:
        return None
    entrypoint = service.get("entrypoint") or image.entrypoint
    if entrypoint != [PADDLER]:
        return None
    environment = image.environment | {key: str(value) for key, value in (service.get("environment") or {}).items()}
    return Run(where=f"service {name}", arguments=service.get("command") or image.command, environment=environment)


def container_run(kind: str, container: Json, config: Mapping[str, str]) -> Run | None:
    """The same of a container of Kubernetes. `config` is what its `envFrom` brings."""
    image = _image_of(container["image"])
    if image is None or container.get("command"):
        return None
    own = {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
    brought = dict(config) if container.get("envFrom") else {}
    arguments = container.get("args") or image.command
    return Run(where=f"{kind} {container['name']}", arguments=arguments, environment=image.environment | brought | own)


def parsed(run: Run) -> dict[str, Any]:
    """The values that the command gets. Fails for a command, a flag or a variable that there is not, and for a value
    that it does not take."""
    command, arguments = find_command(run.arguments)
    is_whole = not isinstance(command, click.Group) or command.invoke_without_command
    assert is_whole, f"{run.where}: `paddler {command.name}` needs a subcommand"
    ours = {name: value for name, value in run.environment.items() if name.startswith(ENV_PREFIX)}
    variables = {parameter.envvar: parameter.name for parameter in command.params if isinstance(parameter.envvar, str)}
    unknown = sorted(set(ours) - set(variables))
    assert not unknown, f"{run.where}: `paddler {command.name}` does not know {', '.join(unknown)}"
    with _environment(ours):
        context = command.make_context(command.name, arguments)
    taken = {
        name for name in ours if context.get_parameter_source(variables[name] or "") is ParameterSource.ENVIRONMENT
    }
    assert taken == set(ours), f"{run.where}: {sorted(set(ours) - taken)} are said by flags, too"
    return context.params


def parsed_check(command: Sequence[str], run: Run) -> None:
    """A health check: one of `paddler probe`, with flags that there are. It has the environment of its container."""
    assert command[0] == PADDLER, command
    leaf, arguments = find_command(list(command[1:]))
    known = {parameter.envvar for parameter in leaf.params}
    with _environment({name: value for name, value in run.environment.items() if name in known}):
        leaf.make_context(leaf.name, arguments)
    assert command[1] == "probe"


def find_command(arguments: list[str]) -> tuple[click.Command, list[str]]:
    """Down the groups, as click goes, past their own flags. Raises `click.UsageError` for what there is not."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        with click.Context(command) as context:
            _, rest, _ = command.make_parser(context).parse_args(list(arguments))
            if not rest:
                break
            _, found, arguments = command.resolve_command(context, rest)
        assert found is not None
        command = found
    return command, arguments


class _environment:
    """`PADDLER_*` as given, and nothing else of it."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._before: dict[str, str] = {}

    def __enter__(self) -> None:
        self._before = {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}
        for name in self._before:
            del os.environ[name]
        os.environ.update(self._variables)

    def __exit__(self, *_: object) -> None:
        for name in self._variables:
            os.environ.pop(name, None)
        os.environ.update(self._before)


def _image_of(reference: str) -> Image | None:
    if not reference.startswith("paddler/"):
        return None
    return images()[reference.removeprefix("paddler/").partition(":")[0]]
