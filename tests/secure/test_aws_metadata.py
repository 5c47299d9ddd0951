"""`aws:metadata:local-ipv4` as an address, by version 2 of the metadata service alone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import rich_click as click
from click.testing import CliRunner, Result
from fake_metadata import fake_metadata
from secure_servers import free_port

from paddler.aws_metadata import MetadataError, local_ipv4
from paddler.settings import ADDRESS, AWS_VARIABLE, Address, aws_options, option

CALLS = ["PUT /latest/api/token 200", "GET /latest/meta-data/local-ipv4 200"]


@click.command()
@option("--inference-addr", type=ADDRESS, default="127.0.0.1:8061")
@option("--statsd-addr", type=ADDRESS, default=None)
@aws_options
def command(*, inference_addr: Address, statsd_addr: Address | None) -> None:
    click.echo(f"{inference_addr} {statsd_addr}")


def run(*flags: str, **environment: str) -> Result:
    return CliRunner().invoke(command, list(flags), env=environment)


def test_a_token_is_got_first() -> None:
    with fake_metadata("10.1.2.3") as server:
        assert local_ipv4(server.url) == "10.1.2.3"
        assert server.calls == CALLS


def test_in_a_flag_with_its_port_or_that_of_the_flag() -> None:
    with fake_metadata("10.1.2.3") as server:
        endpoint = ("--aws-metadata-endpoint", server.url)
        assert run("--inference-addr", "aws:metadata:local-ipv4:9000", *endpoint).output == "10.1.2.3:9000 None\n"
        assert run("--inference-addr", "aws:metadata:local-ipv4", *endpoint).output == "10.1.2.3:8061 None\n"
        by_variable = {
            "PADDLER_STATSD_ADDR": "aws:metadata:local-ipv4:8125",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url,
        }
        assert run(**by_variable).output == "127.0.0.1:8061 10.1.2.3:8125\n"
        assert server.calls == CALLS * 3


def test_what_is_asked_in_vain() -> None:
    with fake_metadata() as server:
        endpoint = ("--aws-metadata-endpoint", server.url)
        assert "no default" in run("--statsd-addr", "aws:metadata:local-ipv4", *endpoint).output
        assert "not a port" in run("--inference-addr", "aws:metadata:local-ipv4:x", *endpoint).output
        assert server.calls == []
    with fake_metadata("not an address") as server, pytest.raises(MetadataError, match="which is no address"):
        local_ipv4(server.url)
    with fake_metadata(is_enabled=False) as server, pytest.raises(MetadataError, match=r"refuses PUT .* with 403"):
        local_ipv4(server.url)
    nobody = f"http://127.0.0.1:{free_port()}"
    result = run("--inference-addr", "aws:metadata:local-ipv4", "--aws-metadata-endpoint", nobody)
    assert result.exit_code == 2
    assert "is this an EC2 instance" in " ".join(result.output.replace("│", " ").split())


def test_a_name_is_left_to_whoever_binds_it() -> None:
    assert run("--inference-addr", "localhost:8061").output == "localhost:8061 None\n"


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Subcommands as `probe balancer`."""
    for one in entry_points(group="paddler.commands"):
        command: click.Command = one.load()
        yield one.name, command
        if isinstance(command, click.Group):
            yield from ((f"{one.name} {name}", child) for name, child in command.commands.items())


COMMANDS = dict(all_commands())
ASKING = sorted(name for name, command in COMMANDS.items() if any(one.type is ADDRESS for one in command.params))


def given(name: str, *flags: str) -> dict[str, Any]:
    """What the process `paddler NAME` would be started with."""
    return dict(COMMANDS[name].make_context(name, list(flags)).params)


@pytest.mark.parametrize("name", ASKING)
def test_every_command_with_an_address_asks_where_it_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By flag and by AWS's own variable: nobody on this machine answers at the default endpoint."""
    params = [one for one in COMMANDS[name].params if one.type is ADDRESS]
    # Of StatsD where there is one: a worker has no other.
    param = next((one for one in params if one.name == "statsd_addr"), params[0])
    flag, field = param.opts[0], str(param.name)
    wanted = f"aws:metadata:local-ipv4:{9000 + len(name)}"
    with fake_metadata("10.1.2.3") as server:
        told = given(name, flag, wanted, "--aws-metadata-endpoint", server.url)[field]
        assert told == Address("10.1.2.3", 9000 + len(name))
        monkeypatch.setenv(AWS_VARIABLE, server.url)
        monkeypatch.setenv(f"PADDLER_{field.upper()}", wanted)
        assert given(name)[field] == told
        assert server.calls == CALLS * 2


def test_which_commands_these_are() -> None:
    assert {"worker", "balancer", "up", "doctor", "probe balancer"} <= set(ASKING)
