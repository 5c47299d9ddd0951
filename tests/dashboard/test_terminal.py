"""The dashboard in a real terminal: tmux, 80 columns and 24 lines, as over SSH."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_harness import SLOW, WatchedFleet, asking, dashboard_command
from lacking import lacks

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), pytest.mark.xdist_group("dashboard")]


class Terminal:
    """A tmux server of its own with one window."""

    def __init__(self, folder: Path) -> None:
        (folder / "tmux.conf").write_text("set -g status off\n")
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", str(folder / "tmux.conf")]
        self._folder = folder

    def start(self, *command: str, **environment: str) -> None:
        """What the command leaves on the screen is still there after its end."""
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        line = f"env {given} {shlex.join(command)}; echo ended with $?; exec sleep 600"
        unset = {name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR", "COLORTERM")}
        new = [*self._tmux, "new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", line]
        subprocess.run(new, check=True, env=unset | {"LC_ALL": "C.UTF-8"}, timeout=30)

    def keys(self, *keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", *keys], check=True, timeout=30)

    def text(self, *, with_colours: bool = False) -> str:
        capture = [*self._tmux, "capture-pane", "-p", *(["-e"] if with_colours else [])]
        return subprocess.run(capture, check=True, capture_output=True, text=True, timeout=30).stdout

    async def shows(self, *words: str, without: str = "") -> str:
        text = ""

        async def is_so() -> bool:
            nonlocal text
            text = await asyncio.to_thread(self.text)
            return all(word in text for word in words) and not (without and without in text)

        try:
            await wait_until(is_so, timeout_s=60, poll_s=0.1, what=f"{words}, without {without!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{text}") from None
        return text

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True, timeout=30)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        lacks("tmux is not installed: apt-get install tmux")
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


async def test_a_session(fleet: WatchedFleet, terminal: Terminal) -> None:
    """Look, drain, undrain, cancel, lose the balancer, find it again, leave."""
    await fleet.agent("llama")
    await fleet.agent("teller", *SLOW)
    terminal.start(*dashboard_command("--management-addr", fleet.address))
    text = await terminal.shows("llama", "teller", "live", "Last update", "Processing", "Drain")
    assert len(text.splitlines()) == 24
    terminal.keys("j", "d")
    await terminal.shows("Drain agent teller?")
    terminal.keys("y")
    await terminal.shows("drained")
    terminal.keys("u")
    await terminal.shows("Undrain agent teller?")
    terminal.keys("Enter")
    await terminal.shows("teller", without="drained")

    terminal.keys("Up", "d")
    await terminal.shows("Drain agent llama?")
    terminal.keys("y")
    await terminal.shows("drained")
    async with asking(fleet, 3):
        terminal.keys("2")
        await terminal.shows("running", "waits 1", "anonymous")
        terminal.keys("End", "c")
        await terminal.shows("Cancel request", "It waits.")
        terminal.keys("y")
        await terminal.shows("It is cancelled.", without="waits 1")
    terminal.keys("1")
    fleet.kill_balancer()
    await terminal.shows("OFFLINE", "Connection refused", "llama")
    await fleet.start_balancer()
    await terminal.shows("live", "llama", without="OFFLINE")
    terminal.keys("q")
    await terminal.shows("ended with 0")


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({"TERM": "xterm-16color"}, True), ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False)],
    ids=["sixteen", "none"],
)
async def test_few_colours_and_none(
    fleet: WatchedFleet, terminal: Terminal, environment: dict[str, str], colours: bool
) -> None:
    await fleet.agent("teller", *SLOW)
    terminal.start(*dashboard_command("--management-addr", fleet.address), **environment)
    await terminal.shows("teller", "ready", "live")
    codes = {code for one in re.findall(r"\x1b\[([0-9;]*)m", terminal.text(with_colours=True)) for code in [one]}
    assert not [code for code in codes if re.search(r"(?:^|;)[34]8;", code)], "colours beyond the sixteen"
    coloured = [code for code in codes if re.search(r"(?:^|;)(?:[349][0-7]|10[0-7])(?:;|$)", code)]
    assert bool(coloured) == colours
    assert any(re.search(r"(?:^|;)7(?:;|$)", code) for code in codes), "the cursor is seen without a colour"
    terminal.keys("Escape")
    await terminal.shows("ended with 0")


async def test_a_pipe_is_no_terminal(fleet: WatchedFleet, terminal: Terminal) -> None:
    terminal.start(*dashboard_command("--once", "--management-addr", fleet.address))
    await terminal.shows("No agent has joined pool default.", "ended with 0")
