"""A whole fleet with the real model, and a browser before its panel."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Page
from up_harness import Up

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "tests" / "panel" / "shots"
"""Where screenshots are kept; git ignores it."""
AXE = ROOT / "api" / "panel" / "web" / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 30_000
"""For what a busy machine with two cores may take its time for."""

WIDE = (1280, 800)
NARROW = (390, 844)

PROXIED = "panel.example"
"""A name by which the browser reaches this machine, and that no balancer knows as its own."""

NO_ANSWER = re.compile(r"Failed to load resource|net::ERR_|Cross-Origin-Opener-Policy header has been ignored")
"""What a browser itself writes to the console about a request that was refused or met no balancer, and about a header
that it heeds by HTTPS and by this machine's own names alone."""


class PanelFleet(Up):
    """`paddler up` with the starter model and one agent of two slots; more agents on demand."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        flags = ("--engine", "llama", "--agents", "1", "--slots", "2", "--context-size", "2048", "--threads", "1")
        super().__init__(
            folder, *flags, "--max-buffered-requests", "1000", "--buffered-request-timeout", "120000", *arguments
        )
        self._added: list[subprocess.Popen[bytes]] = []

    def wait_ready(self) -> None:
        """In a thread: Playwright's own loop runs in this one while there is a browser."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self.ready()).result()

    @property
    def panel_url(self) -> str:
        return self._row("panel")

    def run(self, *arguments: str) -> str:
        """A command of `paddler` on this fleet; gives what it printed."""
        command = [sys.executable, "-P", "-m", "paddler", *arguments]
        environment = {**self.environment, "PADDLER_REDIS_URL": self.redis_url}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    def add_agent(self, name: str, *flags: str) -> subprocess.Popen[bytes]:
        """A process of an agent with the scripted engine, which is there in a second."""
        own = ["--name", name, "--slots", "2", "--redis-url", self.redis_url]
        return self.start("agent", "--engine", "scripted", *own, *flags)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "paddler", *arguments]
        with (self.folder / f"added-{len(self._added)}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        self._added.append(process)
        return process

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("PADDLER_")}

    @contextmanager
    def frozen_balancer(self) -> Generator[None]:
        """A balancer that answers nothing for a while: to a browser it is away."""
        pid = self.pids()["balancer"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill_balancer(self) -> None:
        """`paddler up` starts another one at the same addresses."""
        os.kill(self.pids()["balancer"], signal.SIGKILL)

    def end(self) -> None:
        for process in self._added:
            process.kill()
            process.wait()
        super().end()


class Keys:
    """Those of a test; none is left after it."""

    def __init__(self, fleet: PanelFleet) -> None:
        self._fleet = fleet
        self.ids: list[str] = []

    def create(self, *flags: str) -> str:
        told = json.loads(self._fleet.run("keys", "create", "panel", *flags, "--json"))
        self.ids.append(told["id"])
        return told["secret"]

    def revoke(self) -> None:
        for key_id in self.ids:
            self._fleet.run("keys", "revoke", key_id)

    def forget(self) -> None:
        self.revoke()
        for key_id in self.ids:
            self._fleet.run("keys", "forget", key_id)
        self.ids.clear()


class Screen:
    """One tab before the panel. What it complained about is in `problems`: errors on its console, those of the content
    security policy among them, and exceptions."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.url = url
        self.problems: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", self._on_page_error)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not NO_ANSWER.search(message.text):
            self.problems.append(message.text)

    def _on_page_error(self, error: Error) -> None:
        self.problems.append(str(error))

    def open(self, page: str) -> Page:
        """`fleet`, `settings`, ... Waits until it is there and the live feed, too."""
        self.page.goto(f"{self.url}/#/{page}")
        self.page.locator("#main h1").wait_for()
        self.page.locator("[aria-label=Loading]").wait_for(state="detached")
        return self.page

    def resize(self, size: tuple[int, int]) -> None:
        self.page.set_viewport_size({"width": size[0], "height": size[1]})

    def set_theme(self, theme: str) -> None:
        """`light` or `dark`, as the system has it; nothing moves, so that a screenshot shows no colour under way."""
        self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
        # A colour that is inherited changes a frame after its parent's: texts would be seen in those of before.
        self.page.evaluate("async () => { for (let n = 0; n < 12; n++) await new Promise(requestAnimationFrame) }")

    def shoot_all(self, name: str) -> None:
        """Screenshots of the whole page at both widths, light and dark, into `tests/panel/shots`; checks that nothing
        is wider than the screen, and with axe that it is accessible in both."""
        SHOTS.mkdir(exist_ok=True)
        for size in (WIDE, NARROW):
            self.resize(size)
            for theme in ("light", "dark"):
                self.set_theme(theme)
                self.page.evaluate(
                    "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
                )
                self.page.screenshot(path=SHOTS / f"{name}-{size[0]}-{theme}.png", full_page=True)
                self.check_accessible()
            assert self.page.evaluate("document.documentElement.scrollWidth") <= size[0], f"{name} is too wide"
        self.resize(WIDE)
        self.set_theme("light")

    def check_accessible(self) -> None:
        """WCAG A and AA, as axe knows them."""
        self.page.evaluate(f"() => {{ if (!window.axe) {{ {AXE.read_text()} }} }}")
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
        found: dict[str, Any] = self.page.evaluate(
            "(tags) => axe.run(document, { runOnly: { type: 'tag', values: tags }, resultTypes: ['violations'] })", tags
        )
        told = [
            {"rule": one["id"], "help": one["help"], "where": [node["html"][:200] for node in one["nodes"][:3]]}
            for one in found["violations"]
        ]
        assert told == [], json.dumps(told, indent=2)
