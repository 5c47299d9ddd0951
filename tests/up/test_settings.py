"""Flags, variables and defaults: one rule for every process."""

from __future__ import annotations

from typing import Any

import pytest
import rich_click as click
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from paddler import settings
from paddler.settings import ADDRESS, Address, env_name, log_options, option, pool_option, redis_options
from paddler.store import keys


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8061", "127.0.0.1", 8061),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("balancer.example:80", "balancer.example", 80),
    ],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8061", "is not host:port"),
        (":8061", "is not host:port"),
        ("127.0.0.1", "is not host:port"),
        ("127.0.0.1:", "is not a port"),
        ("127.0.0.1:http", "is not a port"),
        ("127.0.0.1:65536", "is not a port"),
        ("127.0.0.1:-1", "is not a port"),
        ("127.0.0.1:٣", "is not a port"),
        ("::1:8061", "put an IPv6 host in brackets"),
        ("[]:8061", "names no host"),
    ],
)
def test_what_is_no_address_is_explained(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Address.parse(text)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


def test_the_url_of_a_wildcard_address_can_be_called() -> None:
    assert Address("0.0.0.0", 8061).url == "http://127.0.0.1:8061"
    assert Address("::", 8061).url == "http://[::1]:8061"
    assert Address("10.0.0.1", 80).url == "http://10.0.0.1:80"


@click.command()
@option("--inference-addr", type=ADDRESS, default="127.0.0.1:8061", help="Where clients send their requests.")
@option("--fast/--no-fast", default=False, help="A switch.")
@redis_options
@pool_option
@log_options
def example(**given: Any) -> None:
    for name, value in given.items():
        click.echo(f"{name}={value}")


def run(*arguments: str, **environment: str) -> str:
    result = CliRunner().invoke(example, arguments, env=environment)
    assert result.exit_code in {0, 2}, result.output
    return " ".join(result.output.replace("│", " ").split())


def test_defaults() -> None:
    assert run() == (
        "inference_addr=127.0.0.1:8061 fast=False redis_url=redis://127.0.0.1:6379/0 redis_prefix=paddler "
        "pool=default log_level=info log_format=auto"
    )


def test_a_variable_replaces_the_default_and_a_flag_the_variable() -> None:
    environment = {"PADDLER_INFERENCE_ADDR": "[::1]:1", "PADDLER_FAST": "1", "PADDLER_POOL": "b"}
    assert "inference_addr=[::1]:1 fast=True" in run(**environment)
    assert "pool=b" in run(**environment)
    assert "pool=c" in run("--pool", "c", **environment)


def test_help_names_the_variable_and_the_default() -> None:
    text = run("--help", COLUMNS="200")
    assert "PADDLER_INFERENCE_ADDR" in text
    assert "[default: 127.0.0.1:8061]" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--inference-addr", "::1:80"), "put an IPv6 host in brackets"),
        (("--pool", "Big"), "lower-case letters"),
        (("--pool", "-a"), "lower-case letters"),
        (("--pool", "a" * 64), "at most 63"),
        (("--redis-prefix", "a{b}"), "no braces"),
        (("--redis-url", "http://x"), "expected redis://"),
        (("--log-level", "loud"), "is not one of"),
    ],
)
def test_a_bad_value_is_refused_and_explained(arguments: tuple[str, ...], reason: str) -> None:
    text = run(*arguments, COLUMNS="200")
    assert reason in text
    assert arguments[0] in text


def test_the_name_of_a_variable() -> None:
    assert env_name("--redis-url") == "PADDLER_REDIS_URL"
    assert env_name("--fast/--no-fast") == "PADDLER_FAST"


def test_the_default_prefix_is_that_of_the_keys() -> None:
    assert settings.DEFAULT_REDIS_PREFIX == keys.DEFAULT_PREFIX
