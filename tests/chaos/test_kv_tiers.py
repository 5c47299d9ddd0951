"""Tiers that lie, fail, hang and are full: answers are those that are computed without them, and none is lost.

With a model of random weights, which is quick and as particular about its states as any; `PADDLER_TEST_SIZE=full`
(`make chaos`) takes the starter model, more prompts and longer ones.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_gguf import write_model

from paddler.up.starter import find_starter
from tests.chaos.fleet import until
from tests.chaos.kv_damage import damage_files, damage_values
from tests.chaos.kv_fleet import Answer, KvFleet, kv_fleet, prompts

IS_FULL = os.environ.get("PADDLER_TEST_SIZE") == "full"
NUM_PROMPTS, NUM_WORDS = (24, 900) if IS_FULL else (4, 400)
CONTEXT = 4096
NUM_LAYERS = 16
"""Nothing waits for a tier longer than computing takes: that must not be over before a busy machine has read a file."""
BLOCKS_EACH = 2
"""Whole blocks that each prompt has at least."""
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "

pytestmark = [pytest.mark.timeout(1800 if IS_FULL else 120), pytest.mark.xdist_group("real processes")]


def tiny(folder: Path, seed: int) -> Path:
    return write_model(folder / f"tiny-{seed}.gguf", find_starter(), TEMPLATE, seed=seed, num_layers=NUM_LAYERS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_starter() if IS_FULL else tiny(tmp_path_factory.mktemp("model"), 1)


@pytest.fixture
def fleet(tmp_path: Path, model: Path) -> Iterator[KvFleet]:
    with kv_fleet(tmp_path, model, CONTEXT) as fleet:
        yield fleet


@pytest.fixture
def asked() -> list[str]:
    return prompts(NUM_PROMPTS, NUM_WORDS)


def computed(fleet: KvFleet, asked: list[str]) -> list[str]:
    """The answers of an agent that finds nothing anywhere."""
    answers = [fleet.ask(one) for one in asked]
    assert max(one.cached_tokens for one in answers) < 256, "nothing is there yet"
    return [one.text for one in answers]


def all_at_once(fleet: KvFleet, asked: list[str]) -> list[Answer]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(fleet.ask, asked))


def num_restored(answers: list[Answer]) -> int:
    """Nothing waits for a tier longer than computing takes, which is soon over with a model that is so small: what
    matters is that it comes at all."""
    return sum(one.cached_tokens >= 256 for one in answers)


def texts(answers: list[Answer]) -> list[str]:
    return [one.text for one in answers]


def check(told: list[str], expected: list[str]) -> None:
    """A wrong state makes every answer behind it another one. But words of random weights are about as likely as each
    other, and what is computed beside others rounds otherwise: without any tier two of eight answers given at once
    were not those given in turn. So half of them may part."""
    num_others = sum(one != other for one, other in zip(told, expected, strict=True))
    assert num_others <= len(expected) // 2, f"{told}\n{expected}"


def ask_damaged(fleet: KvFleet, tier: str, flags: tuple[str, ...], asked: list[str], expected: list[str]) -> None:
    """By one agent after another until something was refused: what has no time to be read is computed."""
    for number in range(5):
        agent = fleet.agent(f"damaged-{number}", *flags)
        check(texts(all_at_once(fleet, asked)), expected)
        fleet.stop(agent)
        if fleet.counted(tier, "refused") > 0:
            return
    raise AssertionError("nothing was refused")


def test_what_is_whole_comes_back(fleet: KvFleet, asked: list[str], tmp_path: Path) -> None:
    """What all others go by: without a fault nothing is computed again."""
    disk = ("--kv-disk", str(tmp_path / "states"))
    agent = fleet.agent("first", *disk)
    expected = computed(fleet, asked)
    fleet.stop(agent)
    fleet.agent("second", *disk)
    answers = [fleet.ask(one) for one in asked]
    check(texts(answers), expected)
    assert num_restored(answers) > 0
    fleet.until_counted("disk", "hits", BLOCKS_EACH * len(asked))
    assert fleet.counted("disk", "refused") == 0


def test_files_are_damaged(fleet: KvFleet, asked: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "states"
    agent = fleet.agent("first", "--kv-disk", str(folder))
    expected = computed(fleet, asked)
    fleet.stop(agent)
    files = sorted(folder.rglob("*.kv"))
    damage_files(files, seed=1)
    ask_damaged(fleet, "disk", ("--kv-disk", str(folder)), asked, expected)
    # What was refused has been written anew; what no time was left to look at is found now.
    fleet.agent("third", "--kv-disk", str(folder))
    answers = all_at_once(fleet, asked)
    check(texts(answers), expected)
    assert num_restored(answers) > 0
    assert fleet.counted("disk", "refused") <= len(files)


def test_values_of_the_shared_store_are_damaged(fleet: KvFleet, asked: list[str]) -> None:
    shared = ("--kv-url", fleet.kv_url)
    agent = fleet.agent("first", *shared)
    expected = computed(fleet, asked)
    fleet.until_stored(BLOCKS_EACH * len(asked))
    fleet.stop(agent)
    keys = sorted(fleet.stored.keys())
    damage_values(fleet.stored, keys, seed=2)
    ask_damaged(fleet, "shared", shared, asked, expected)
    # What was refused has been written anew; what no time was left to look at is found now.
    fleet.agent("third", *shared)
    answers = all_at_once(fleet, asked)
    check(texts(answers), expected)
    assert num_restored(answers) > 0
    assert fleet.counted("shared", "refused") <= len(keys)


def test_another_model_is_put_in_the_files_place(fleet: KvFleet, asked: list[str], tmp_path: Path) -> None:
    """Its name and its path are the same, its states are not: they are never found."""
    disk = ("--kv-disk", str(tmp_path / "states"))
    agent = fleet.agent("first", *disk)
    first = computed(fleet, asked)
    fleet.stop(agent)
    shutil.copyfile(tiny(tmp_path, 2), fleet.model)
    agent = fleet.agent("second", *disk)
    second = computed(fleet, asked)
    assert first != second
    fleet.stop(agent)
    shutil.copyfile(tiny(tmp_path, 2), fleet.model)
    agent = fleet.agent("third")
    assert texts([fleet.ask(one) for one in asked]) == second, "with no tier at all"
    assert fleet.counted("disk", "hits") == fleet.counted("disk", "refused") == 0


def test_another_key_opens_nothing(fleet: KvFleet, asked: list[str], tmp_path: Path) -> None:
    keys = [tmp_path / f"key-{n}" for n in range(2)]
    for n, key in enumerate(keys):
        key.write_bytes(random.Random(n).randbytes(32))
    disk = ("--kv-disk", str(tmp_path / "states"), "--kv-key-file")
    agent = fleet.agent("first", *disk, str(keys[0]))
    expected = computed(fleet, asked)
    fleet.stop(agent)
    fleet.agent("second", *disk, str(keys[1]))
    answers = [fleet.ask(one) for one in asked]
    check(texts(answers), expected)
    assert max(one.cached_tokens for one in answers) < 256
    assert fleet.counted("disk", "hits") == 0


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_the_shared_store_fails_in_the_middle_of_load(fleet: KvFleet, asked: list[str], fault: str) -> None:
    """And is there again: what happens meanwhile costs computing, and no request."""
    for name in ("one", "other"):
        fleet.agent(name, "--kv-url", fleet.kv_url)
    expected = texts(all_at_once(fleet, asked))
    more = prompts(NUM_PROMPTS, NUM_WORDS, seed=1)
    process = fleet.states.process
    assert process is not None
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(fleet.ask, one) for one in [*more, *asked, *more]]
        answers[0].result()
        if fault == "killed":
            fleet.states.kill()
        else:
            process.send_signal(signal.SIGSTOP)
        told = [one.result() for one in answers]
    unheard = iter(prompts(1000, NUM_WORDS, seed=3))

    def has_failed() -> bool:
        """Everything before it may have been written by then, or come from nearer."""
        fleet.ask(next(unheard))
        return fleet.counted("shared", "failures") > 0

    until(has_failed, "a failure is counted")
    if fault == "killed":
        fleet.start_states()
    else:
        process.send_signal(signal.SIGCONT)
    check(texts(told[len(more) : -len(more)]), expected)
    check(texts(told[: len(more)]), texts(told[-len(more) :]))
    check(texts(all_at_once(fleet, asked)), expected)


def test_the_disk_has_room_for_little(fleet: KvFleet, asked: list[str], tmp_path: Path) -> None:
    folder, room = tmp_path / "states", 300_000 * NUM_LAYERS
    disk = ("--kv-disk", str(folder), "--kv-disk-size", str(room))
    agent = fleet.agent("first", *disk)
    expected = computed(fleet, asked)
    fleet.stop(agent)
    files = list(folder.rglob("*.kv"))
    assert 0 < sum(file.stat().st_size for file in files) <= room
    fleet.agent("second", *disk)
    check(texts(all_at_once(fleet, asked)), expected)


def test_the_folder_of_states_is_no_folder_any_more(fleet: KvFleet, asked: list[str], tmp_path: Path) -> None:
    """As it is for a disk that is gone, or mounted for reading alone: each write fails."""
    folder = tmp_path / "states"
    fleet.agent("first", "--kv-disk", str(folder))
    expected = computed(fleet, asked)
    # At once: what is still being written would make a folder anew that is removed file by file.
    folder.rename(tmp_path / "gone")
    folder.write_text("in its place")
    more = prompts(NUM_PROMPTS, NUM_WORDS, seed=2)
    again = texts(all_at_once(fleet, more))
    fleet.until_counted("disk", "failures", 1)
    check(texts(all_at_once(fleet, asked)), expected)
    check(texts(all_at_once(fleet, more)), again)


def test_the_holder_hangs_and_dies_while_it_is_asked(fleet: KvFleet, asked: list[str]) -> None:
    """The kernel still takes connections for it: only a deadline ends the wait."""
    peer = ("--kv-addr", "127.0.0.1:0")
    holder = fleet.agent("holder", *peer)
    expected = computed(fleet, asked)
    newcomer = fleet.agent("newcomer", *peer)
    fleet.drain("holder")
    holder.send(signal.SIGSTOP)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(fleet.ask, one) for one in asked]
        answers[0].result()
        fleet.kill(holder)
        check(texts([one.result() for one in answers]), expected)
    assert "a peer did not give" in newcomer.log.read_text(), "it was asked"
