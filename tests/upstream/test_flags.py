"""The flags of an agent that fronts another server."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from workers.agent.main import command
from workers.agent.upstream.settings import UpstreamSettings, host_without_port, root_of

FRONTING = ("--engine", "openai", "--upstream", "http://a")


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://a:8080", "http://a:8080"),
        ("http://a:8080/", "http://a:8080"),
        ("https://a/v1", "https://a"),
        ("https://a/llm/v1/", "https://a/llm"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
    ],
)
def test_a_url_is_that_of_the_root(url: str, root: str) -> None:
    assert root_of(url) == root


@pytest.mark.parametrize("url", ["a:8080", "ftp://a", "http://", "http://a?x=1", "http://u:p@a", "http://a:x"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|port"):
        root_of(url)


def test_a_virtual_host_has_no_port() -> None:
    assert (host_without_port("https://a.b:8443"), host_without_port("http://[::1]:80")) == ("a.b", "[::1]")


@pytest.mark.parametrize("text", ["", "\n", "two words", "käse"])
def test_a_file_without_a_key(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ValueError, match="holds no key"):
        UpstreamSettings(url="http://a", key_file=file).read_key()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "openai"], "--upstream is required"),
        (["--engine", "openai", "--upstream", "nowhere"], "is no URL of a server"),
        ([*FRONTING, "--model", "x.gguf"], "--model is for engines that load"),
        ([*FRONTING, "--threads", "2"], "--threads is for engines that load"),
        (["--upstream", "http://a", "--slots", "1", "--model", "x"], "--upstream goes with --engine openai"),
        (["--model", "x.gguf"], "--slots is required with --engine llama"),
        (
            [*FRONTING, "--local-llamacpp-api-key", "k", "--upstream-api-key-file", "f"],
            "both give the key",
        ),
        ([*FRONTING, "--rewrite-host-header", "a b"], "is no name of a host"),
    ],
)
def test_flags_that_mean_nothing_together_are_refused(arguments: list[str], says: str) -> None:
    outcome = CliRunner().invoke(command, arguments)
    assert outcome.exit_code == 2
    assert says in " ".join(outcome.output.replace("│", " ").split())
