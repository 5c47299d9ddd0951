"""The `paddler` command: a group whose subcommands are found by entry points and imported when they are run.

So `paddler` imports neither `api` nor `workers`, `paddler --help` is quick, and another distribution can add
commands (`[project.entry-points."paddler.commands"]`, a click command under the name it is called by).
"""

from __future__ import annotations

import ctypes
import re
import sys
from importlib import metadata

import rich_click as click

from paddler import __version__

ENTRY_POINTS = "paddler.commands"

SUMMARIES = {
    "up": "Start everything on this machine: Redis, balancer, agents, worker, a model.",
    "balancer": "Serve HTTP: turn calls into requests in Redis and stream the answers.",
    "agent": "Load a model and work on requests from Redis, one in each slot.",
    "worker": "Do the fleet's housekeeping: reap lost agents, expire deadlines, run batches.",
    "autoscale": "Start agents when requests need them and stop those that nobody needs.",
    "queue": "Show the queue, look closer at what waits and what died, cancel and requeue.",
    "dashboard": "Watch a fleet on the terminal: agents, requests, buffer, speed; drain and cancel.",
    "pools": "Show the pools: agents, slots, what waits.",
    "agents": "Show the agents; drain, undrain and remove them.",
    "requests": "Show requests that wait and run, what happened to one, and stop them.",
    "keys": "Make, list, limit, rotate and revoke API keys.",
    "usage": "Show what tenants have used, by day, key and model.",
    "model": "Show and change what a pool is to serve and how: its desired state.",
    "prefixes": "Pin what many requests begin with: agents compute it once and keep it.",
    "batch": "Answer files of requests when there is time: submit, watch, fetch, cancel.",
    "bench": "Put load on OpenAI-compatible servers and compare them: latencies, goodput, cache hits.",
    "doctor": "Check Redis, the fleet and this machine, and say what to do about what is wrong.",
    "acl": "Print ACL users for Redis with what each kind of process needs, and no more.",
    "probe": "Say by the exit code whether a process does its work, for health checks.",
}
"""What `--help` says of our own commands without importing them, in the order it lists them."""

CONTEXT_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "rich_help_config": {
        # A column for metavars would leave 25 characters for the text and cut long flags on a terminal of 80.
        "options_table_column_types": ["required", "opt_long", "opt_short", "help"],
        "options_table_help_sections": ["help", "metavar", "default", "envvar", "required", "deprecated"],
        "append_metavars_help_string": "({})",
        "default_string": "\\[default: {}]",
        "envvar_string": "\\[{}]",
        "required_long_string": "\\[required]",
        "max_width": 120,
    },
}
"""Subcommands inherit it from the group's context."""


class Listed(click.RichCommand):
    """Stands in `--help` for a command that has not been imported."""

    def __init__(self, entry_point: metadata.EntryPoint) -> None:
        super().__init__(name=entry_point.name, help=SUMMARIES.get(entry_point.name, f"From {entry_point.module}."))
        self._entry_point = entry_point

    def load(self) -> click.Command:
        """Import the real command. Raises `ClickException` naming the missing package and how to install it."""
        try:
            command = self._entry_point.load()
        except ModuleNotFoundError as error:
            raise click.ClickException(_explain(self._entry_point.name, error.name or "")) from error
        if not isinstance(command, click.Command):
            raise click.ClickException(f"The entry point {self._entry_point.value} is not a click command.")
        return command


class Commands(click.RichGroup):
    """A group that lists its commands from entry points and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the signature is click's
        names = {entry_point.name for entry_point in metadata.entry_points(group=ENTRY_POINTS)}
        known = [name for name in SUMMARIES if name in names]
        return known + sorted(names.difference(known))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        found = metadata.entry_points(group=ENTRY_POINTS, name=cmd_name)
        return Listed(next(iter(found))) if found else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Listed) else command, rest


def version_text() -> str:
    """Paddler's version and the llama.cpp build it runs, one a line."""
    lines = [f"paddler {__version__}"]
    try:
        binding = metadata.distribution("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return "\n".join([*lines, "llama.cpp is not installed"])
    return "\n".join([*lines, f"llama.cpp {_llama_version(binding)} (llama-cpp-python {binding.version})"])


def _llama_version(binding: metadata.Distribution) -> str:
    """Ask the library itself: importing the binding would take half a second.

    Its commit is not asked for. A build from the sdist has none of its own and names that of any repository around.
    """
    suffix = "dylib" if sys.platform == "darwin" else "so"
    try:
        library = ctypes.CDLL(str(binding.locate_file(f"llama_cpp/lib/libllama.{suffix}")))
        library.llama_version.restype = ctypes.c_char_p
        return library.llama_version().decode()
    except (OSError, AttributeError):
        return "of an unknown version"


def _explain(command: str, module: str) -> str:
    """Why a command cannot be imported; an extra is named when one of ours brings the missing package."""
    wanted = module.partition(".")[0].replace("_", "-").lower()
    if wanted in {"paddler", "api", "workers"}:
        return f"`paddler {command}` is not part of this installation: it has no module {module!r}."
    for requirement in metadata.requires("paddler") or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if extra and name.replace("_", "-").lower() == wanted:
            return f"`paddler {command}` needs {name}: pip install 'paddler[{extra[1]}]'"
    return f"`paddler {command}` needs the Python module {module!r}, which is not installed."


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(version_text())
        ctx.exit()


@click.group(cls=Commands, context_settings=CONTEXT_SETTINGS, invoke_without_command=True)
@click.option(  # pyright: ignore[reportUnknownMemberType]  # rich-click leaves ParamType's parameter open
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version of Paddler and of llama.cpp.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Serve open-weight models from a fleet of machines, through a queue that loses nothing.

    Start with `paddler up`. Every flag is also a variable: --redis-url is PADDLER_REDIS_URL.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """The console script."""
    cli(prog_name="paddler")
