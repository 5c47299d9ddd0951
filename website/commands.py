"""The reference of commands and variables, read from the click commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, cast

import click
from msgspec import Struct

from paddler.cli import SUMMARIES, Listed, cli
from website.markdown import code, page, plain, table

PROCESSES = {
    "up": "balancer, agents, worker and Valkey on one machine",
    "balancer": "a balancer",
    "agent": "an agent",
    "worker": "a worker",
    "autoscale": "an autoscaler",
}
"""Which commands are processes that go on; all others ask or change something and end."""


class Found(Struct, frozen=True):
    """A command, where it is called: `("model", "use")`."""

    path: tuple[str, ...]
    command: click.Command

    @property
    def words(self) -> str:
        return " ".join(("paddler", *self.path))

    @property
    def options(self) -> list[click.Option]:
        options = [one for one in self.command.params if isinstance(one, click.Option)]
        return [one for one in options if not one.hidden and one.name != "help"]

    @property
    def arguments(self) -> list[click.Argument]:
        return [one for one in self.command.params if isinstance(one, click.Argument)]

    @property
    def about(self) -> str:
        return inspect.cleandoc(self.command.help or "").partition("\f")[0]


def commands() -> Iterator[Found]:
    """Every command and subcommand, as `--help` lists them."""
    with click.Context(cli, info_name="paddler") as context:
        yield from _below(context, ())


def _below(context: click.Context, path: tuple[str, ...]) -> Iterator[Found]:
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        command = command.load() if isinstance(command, Listed) else command
        assert command is not None
        found = Found((*path, name), command)
        yield found
        if isinstance(command, click.Group):
            with click.Context(command, parent=context, info_name=name) as below:
                yield from _below(below, found.path)


def flag(option: click.Option) -> str:
    names = [*option.opts, *option.secondary_opts]
    return max(names, key=len) if not option.secondary_opts else "/".join(names)


def takes(parameter: click.Parameter) -> str:
    """What a value has to be, with its bounds; a flag takes none."""
    kind = parameter.type
    if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count):
        return ""
    if isinstance(kind, click.Choice):
        words = ", ".join(code(str(one)) for one in cast("list[object]", kind.choices))
    elif isinstance(kind, click.IntRange | click.FloatRange):
        words = f"{'integer' if isinstance(kind, click.IntRange) else 'number'}{_bounds(kind)}"
    elif isinstance(kind, click.Path):
        words = "file" if not kind.dir_okay else "folder" if not kind.file_okay else "path"
    else:
        words = {"text": "text", "integer": "integer", "float": "number"}.get(kind.name, kind.name)
    return f"{words}; may be repeated" if parameter.multiple or parameter.nargs == -1 else words


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    low, high = kind.min, kind.max
    least = "" if low is None else f"more than {low}" if kind.min_open else f"{low}"
    most = "" if high is None else f"less than {high}" if kind.max_open else f"{high}"
    if least and most:
        return f", {least} to {most}"
    return f", {least if kind.min_open else f'{least} or more'}" if least else f", {most} or less" if most else ""


def default(option: click.Option) -> str:
    """What holds where it is not given, as its help says it."""
    if isinstance(option.show_default, str):
        return option.show_default
    value: Any = option.default
    if option.is_flag and not option.secondary_opts:
        return "off" if value is not True else "on"
    if callable(value) or value in (None, (), "") or type(value).__name__ == "Sentinel":
        return "required" if option.required else ""
    if option.secondary_opts:
        return code(option.opts[0] if value else option.secondary_opts[0])
    several = cast("list[object]", value) if isinstance(value, tuple | list) else [value]
    return ", ".join(code(str(one)) for one in several)


def about(option: click.Option) -> str:
    words = plain(option.help or "")
    return f"{words} **Deprecated.**" if option.deprecated else words


def variable(option: click.Option) -> str:
    return option.envvar if isinstance(option.envvar, str) else ""


def command_page(found: Found, below: list[Found]) -> str:
    """A command with its subcommands."""
    name = found.path[0]
    process = f"Starts {PROCESSES[name]}, until it is told to stop." if name in PROCESSES else ""
    return page(f"# {found.words}", process, _told(found), *(f"## {one.words}\n\n{_told(one)}" for one in below))


def _told(found: Found) -> str:
    usage = "".join(f" {one.make_metavar(click.Context(found.command))}" for one in found.arguments)
    rows = [
        ("<br>".join(code(name) for name in (flag(one), variable(one)) if name), about(one), takes(one), default(one))
        for one in found.options
    ]
    shown = f"    {found.words}{' [FLAGS]' if rows else ''}{usage}"
    if isinstance(found.command, click.Group):
        shown += " COMMAND" if not found.command.invoke_without_command else " [COMMAND]"
    return page(plain(found.about), shown, table(("flag, variable", "what", "takes", "default"), rows))


def command_pages() -> dict[str, str]:
    """By their path below `docs/`."""
    every = list(commands())
    tops = [one for one in every if len(one.path) == 1]
    rows = [(f"[{code(one.words)}]({one.path[0]}.md)", SUMMARIES[one.path[0]]) for one in tops]
    pages = {"reference/commands/index.md": page("# Commands", INTRODUCTION, table(("command", "what"), rows))}
    for top in tops:
        below = [one for one in every if len(one.path) > 1 and one.path[0] == top.path[0]]
        pages[f"reference/commands/{top.path[0]}.md"] = command_page(top, below)
    pages["reference/configuration.md"] = configuration_page(every)
    return pages


INTRODUCTION = """\
A flag is also a variable: `--redis-url` is `PADDLER_REDIS_URL`, and a flag beats its variable. Durations are whole
milliseconds, sizes bytes. Every command has `--help`. These pages are made of the commands themselves."""


def configuration_page(every: list[Found]) -> str:
    """Every variable once, with the processes that read it: those of the same name and meaning in one row."""
    rows: dict[tuple[str, str, str], list[Found]] = {}
    for found in every:
        for one in found.options:
            if variable(one):
                rows.setdefault((variable(one), takes(one), default(one)), []).append(found)
    lines = [
        (code(name), ", ".join(_link(one) for one in of), kind, value)
        for (name, kind, value), of in sorted(rows.items())
    ]
    return page("# Configuration", CONFIGURATION, table(("variable", "read by", "takes", "default"), lines))


CONFIGURATION = """\
Every variable, and which command reads it; the command's page says what it does. A variable with several rows has
another default, or takes other values, there. The flag of a variable is its name in small letters, with dashes and
without `PADDLER_`; a flag that may be repeated is a list with spaces between in its variable."""


def _link(found: Found) -> str:
    return f"[{' '.join(found.path)}](commands/{found.path[0]}.md)"
