"""`paddler bench` as its user meets it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec
import pytest
import trustme
from click.testing import CliRunner
from fake_upstream import FakeUpstream, for_ever, in_turn, telling
from fleet_harness import Fleet
from http_harness import HttpBalancer

from paddler.bench.client import CHAT
from paddler.bench.command import command
from paddler.bench.report import Report
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

MEASURED = ("--tokens-per-word", "1", "--output-tokens", "4", "--prompt-tokens", "8")


async def start(*arguments: str) -> asyncio.subprocess.Process:
    environment = os.environ | {"COLUMNS": "100"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "paddler", "bench", *arguments), stdout=PIPE, stderr=PIPE, env=environment
    )


async def test_a_fleet_is_measured_and_every_file_written(balancer: HttpBalancer, fleet: Fleet, tmp_path: Path) -> None:
    await fleet.agent()
    key = tmp_path / "key"
    key.write_text("sk-nobody\n")
    output, samples, page = tmp_path / "out.json", tmp_path / "samples.jsonl", tmp_path / "page.html"
    process = await start(
        *("--url", f"fleet={balancer.url()}/v1", "--compare", balancer.url("openai"), "--rounds", "1"),
        *("--requests", "6", "--concurrency", "2", "--turns", "2", *MEASURED, "--header", "X-Secret: quiet"),
        *("--output", str(output), "--samples", str(samples), "--html", str(page), "--api-key-file", str(key)),
        *("--goodput", "ttft:60000", "e2e:60000"),
    )
    printed, told = (data.decode() for data in await process.communicate())
    assert process.returncode == 0, told
    assert told == "", "a bar is for terminals"
    report = msgspec.json.decode(output.read_bytes(), type=Report)
    assert [target.label for target in report.targets] == ["fleet", balancer.url("openai").partition("://")[2]]
    for target in report.targets:
        (found,) = target.rounds
        assert (found.num_ok, found.errors) == (6, {})
        assert found.goodput is not None
        assert (found.goodput.goals, found.goodput.share) == (["ttft:60000", "e2e:60000"], 1.0)
    assert {row.figure for row in report.comparison} >= {"TTFT p50", "goodput", "cache hits"}
    assert report.options["header"] == ["X-Secret"]
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [line["target"] for line in lines].count("fleet") == 6
    for text in (printed, output.read_text(), page.read_text()):
        assert "quiet" not in text
        assert "sk-nobody" not in text
    assert "6 of 6 answered" in printed
    assert "medians of 1 round" in printed
    assert max(map(len, printed.splitlines())) <= 120
    assert page.read_text().startswith("<!doctype html>")


async def test_ctrl_c_prints_what_there_is(server: FakeUpstream) -> None:
    server.routes[CHAT] = in_turn([telling("one"), telling("two"), for_ever("three")])
    process = await start("--url", server.url, "--concurrency", "1", "--requests", "9", "--json", *MEASURED)
    await wait_until(lambda: len(server.generated()) == 3, what="the third request is there")
    process.send_signal(signal.SIGINT)
    printed, told = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130, told
    report = msgspec.json.decode(printed, type=Report)
    (found,) = report.targets[0].rounds
    assert (report.is_stopped, found.num_ok, found.num_unfinished) == (True, 2, 1)


async def test_ctrl_c_before_the_first_answer_of_a_target_says_so(server: FakeUpstream) -> None:
    server.routes["/v1/models"] = for_ever()
    process = await start("--url", server.url)
    await wait_until(lambda: len(server.asked) == 1, what="the target is asked for its models")
    process.send_signal(signal.SIGINT)
    _, told = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert "Stopped before anything was measured." in told.decode()


def run(*arguments: str) -> tuple[int, str]:
    told = CliRunner().invoke(command, [*arguments])
    return told.exit_code, " ".join(told.output.replace("│", " ").split())


def test_nothing_but_failures_is_a_failure(server: FakeUpstream) -> None:
    """And a server that cannot be reached at all is told at once, by its address."""
    server.routes[CHAT] = None
    code, told = run("--url", server.url, "--requests", "2", *MEASURED)
    assert (code, "0 of 2 answered" in told, "status 404" in told) == (1, True, True)
    server.stop()
    code, told = run("--url", server.url)
    assert (code, f"{server.url} cannot be talked to" in told) == (1, True)


def test_a_seed_is_drawn_and_told_and_asks_the_same_again(server: FakeUpstream) -> None:
    load = ("--url", server.url, "--requests", "1", "--json", *MEASURED)
    one, two = (msgspec.json.decode(run(*load)[1], type=Report) for _ in range(2))
    assert one.seed != two.seed
    assert f"--seed {one.seed}" in run(*load[: -len(MEASURED) - 1], *MEASURED, "--seed", str(one.seed))[1]
    first, second, again = (asked.body["messages"] for asked in server.generated())
    assert first == again != second


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rate", "2", "--concurrency", "2"), "--rate is an open loop and --concurrency a closed one"),
        (("--rate", "0"), "0.0 is not in the range"),
        (("--url", "ftp://host"), "is no URL such as http://127.0.0.1:8061"),
        (("--url", "http://me:secret@host"), "a key is for --api-key-file"),
        (("--compare", "http://127.0.0.1:8061/v1"), "names a target twice"),
        (("--compare-model", "x"), "--compare-model is of targets of --compare, and there is none"),
        (("--warmup", "5000", "--duration", "5000"), "leaves nothing of --duration 5000"),
        (("--prompt-tokens", "20:10"), "the lower number first"),
        (("--prompt-tokens", "many"), "'many' is neither a number nor LOW:HIGH"),
        (("--turns", "0"), "from 1 upwards"),
        (("--goodput", "ttft"), "'ttft' is not MEASURE:MS, such as ttft:2000"),
        (("--goodput", "ttft:1", "ttft:2"), "each measure once"),
        (("itl:5",), "'itl:5' is behind no flag"),
        (
            ("--no-stream", "--goodput", "ttft:200", "e2e:9", "gap:5"),
            "--goodput ttft:200 gap:5: with --no-stream only e2e",
        ),
        (("--extra-body", "[]"), "is no JSON object"),
        (("--extra-body", '{"stream": true}'), "stream is what the benchmark says itself"),
        (("--header", "nonsense"), "'nonsense' is not the beginning of NAME: VALUE"),
        (("--trace", "nowhere.jsonl"), "--trace nowhere.jsonl: No such file or directory"),
        (("--api-key-file", "nowhere"), "--api-key-file nowhere: No such file or directory"),
        (("--output", "/nowhere/out.json"), "/nowhere is not there, or not yours"),
        (("--tls-ca", "nowhere.pem"), "--tls-ca is for https://, and no URL is one"),
        (("--url", "https://host", "--tls-ca", "nowhere.pem"), "--tls-ca nowhere.pem: No such file or directory"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], words: str) -> None:
    code, told = run(*arguments)
    assert code == 2
    assert words in told


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--rate", "1"), "leave --rate out"), (("--turns", "2"), "leave --turns and --system-tokens out")],
)
def test_a_trace_says_itself_when_and_what(tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1}')
    code, told = run("--trace", str(path), *flags)
    assert (code, words in told) == (2, True)


def test_a_certificate_is_trusted_by_its_authority_alone(tmp_path: Path) -> None:
    """Nothing listens behind a TLS socket here: that the file is taken is seen by how far it gets."""
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    code, told = run("--url", "https://127.0.0.1:9", "--tls-ca", str(ca))
    assert (code, "https://127.0.0.1:9 cannot be talked to" in told) == (1, True)
