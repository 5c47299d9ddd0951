"""Where states of the KV cache are kept: what the flags of an agent and of `paddler up` take, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from paddler.settings import Address
from paddler.up.command import command as up
from workers.agent.main import command as agent

BASE = ["--slots", "1", "--redis-url", "redis://127.0.0.1:6379/0"]


def refusal(*arguments: str, **environment: str) -> str:
    """What the agent says; on one line, whatever the width of a terminal."""
    result = CliRunner().invoke(agent, [*BASE, *arguments], env={"COLUMNS": "500", **environment})
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def taken(*arguments: str, **environment: str) -> dict[str, object]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return agent.make_context("agent", [*BASE, *arguments]).params


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kv-url", "redis://127.0.0.1:6379/3"], "--kv-url is the server of --redis-url"),
        (["--kv-url", "redis://localhost"], "Give them a Redis or Valkey of their own"),
        (["--kv-url", "http://host"], "expected redis://host:port/db"),
        (["--kv-url", "redis+sentinel://host/main"], "expected one server"),
        (["--kv-url", "redis://kv?password_file=/nowhere"], "--kv-url: password_file /nowhere"),
        (["--kv-url", "rediss://kv?ssl_ca_certs=/nowhere"], "--kv-url: ssl_ca_certs /nowhere"),
        (["--kv-disk-size", "1GiB"], "--kv-disk-size goes with --kv-disk"),
        (["--kv-disk", "d", "--kv-disk-size", "much"], "is no size"),
        (["--kv-disk", "d", "--kv-disk-size", "0"], "leave --kv-disk out"),
        (["--kv-disk", "d", "--kv-ram", "0"], "--kv-ram 0 and --kv-disk"),
        (["--kv-advertise", "http://a:1"], "--kv-advertise goes with --kv-addr"),
        (["--kv-addr", "127.0.0.1:0", "--kv-advertise", "a:1"], "is no http://host:port"),
        (["--kv-addr", "127.0.0.1:0", "--kv-advertise", "https://a:1"], "is encrypted already"),
        (["--kv-addr", "8064"], "is not host:port"),
        (["--kv-key-file", "k"], "--kv-key-file goes with --kv-disk or --kv-url or --kv-addr"),
        (["--kv-disk", "d", "--kv-key-file", "/nowhere"], "--kv-key-file /nowhere: No such file"),
        (["--kv-grace", "5"], "--kv-grace goes with"),
        (["--engine", "scripted", "--kv-disk", "d"], "not with --engine scripted"),
    ],
)
def test_what_does_not_go_together_is_explained(arguments: list[str], said: str) -> None:
    assert said in refusal(*arguments)


def test_a_socket_is_the_queues_too() -> None:
    assert "is the server of" in refusal("--redis-url", "unix:///s", "--kv-url", "unix:///s?db=2")


def test_a_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    assert "5 bytes are no key; make one with: head -c 32" in refusal(
        "--kv-disk", str(tmp_path), "--kv-key-file", str(tmp_path / "key")
    )


def test_variables_are_read() -> None:
    found = taken(PADDLER_KV_URL="redis://kv", PADDLER_KV_ADDR="0.0.0.0:8064", PADDLER_KV_DISK_SIZE="2MiB")
    assert (found["kv_url"], found["kv_addr"]) == ("redis://kv", Address("0.0.0.0", 8064))
    assert found["kv_disk_size"] == 2 << 20
    assert found["kv_grace"] == 2000


def test_a_fleet_on_one_machine_has_no_room_for_two_at_one_port() -> None:
    result = CliRunner().invoke(up, ["--agents", "2", "--kv-addr", "127.0.0.1:8064"], env={"COLUMNS": "500"})
    assert "port 0 gives each its own" in " ".join(result.output.split())
    result = CliRunner().invoke(up, ["--engine", "scripted", "--kv-disk", "d"], env={"COLUMNS": "500"})
    assert "not with --engine scripted" in " ".join(result.output.split())
