"""A fleet with the real model, and a shell in which the documents' commands are typed before it.

What a document cannot know is put in: its addresses become the fleet's, `$ID` is the id of `agent-1`, `$REQUEST_ID` is
that of a request that runs, `pd-...` the first key that the page has made, twelve hex digits the key it made last.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import redis
from doc_blocks import Block, own_commands
from panel_harness import PanelFleet

from paddler.settings import DEFAULT_REDIS_PREFIX
from paddler.store.process_keys import process_key
from paddler.store.tenant_keys import api_keys_key
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter

BIN = Path(sys.executable).parent
SIZE = ("--slots", "4", "--context-size", "4096")
STATE = "/api/v1/balancer_desired_state"
MODELS = ("model.gguf", "m.gguf", "a.gguf")
"""Files of the starter model that a page finds where it is typed."""

ADDRESSES = ("INFERENCE", "MANAGEMENT", "WEB_ADMIN_PANEL")
SERVERS = {"balancer": '"listening"', "agent": '"registered"', "worker": "", "up": "Paddler is up"}
"""Commands that go on until they are told to stop, each with what its log says when it does its work; a worker's says
nothing, but it tells Redis of itself."""

ENDLESS = re.compile(r" --watch\b|/api/v1/(?:agents|pools|buffered_requests)/stream\b")
DANGEROUS = re.compile(r"\b(?:apt(?:-get)?|docker|helm|kill(?:all)?|kubectl|make|pip|pkill|rm|sudo|systemctl)\b")
"""What would reach beyond the test's own fleet and folder: a block with it says why it is not run."""


class DocFleet(PanelFleet):
    """`paddler up` with the starter model: `agent-1` of four slots, whose context ends any story."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, *SIZE)
        self._first_state: Any = None
        self._requests: list[str] = []

    def wait_ready(self) -> None:
        super().wait_ready()
        self._first_state = self.ask("GET", STATE).json()

    @property
    def ports(self) -> dict[str, str]:
        urls = {8060: self.management_url, 8061: self.inference_url, 8062: self.panel_url, 8070: self.openai_url}
        return {f"127.0.0.1:{port}": url.removeprefix("http://") for port, url in urls.items()}

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        url = self.inference_url if path.startswith("/v1/") else self.management_url
        answer = httpx.request(method, url + path, json=body, timeout=30, trust_env=False)
        assert answer.is_success, answer.text
        return answer

    def agents(self) -> list[dict[str, Any]]:
        """Those called `agent-1`."""
        found: list[dict[str, Any]] = self.ask("GET", "/api/v1/agents").json()["agents"]
        return [one for one in found if one["name"] == "agent-1" and one["state"] != "leaving"]

    def agent_id(self) -> str:
        """Of `agent-1`, in whatever state; where an earlier command has removed it, of a new one that is ready."""
        if not (found := self.agents()):
            self.start("agent", "--name", "agent-1", "--redis-url", self.redis_url, *SIZE)
            found = wait_for(self._ready_agents, "agent-1 is there again")
        return found[0]["id"]

    def _ready_agents(self) -> list[dict[str, Any]]:
        return [one for one in self.agents() if one["state"] == "ready"]

    def wait_gone(self, agent_id: str) -> None:
        wait_for(lambda: all(one["id"] != agent_id for one in self.agents()), "agent-1 is gone")

    @property
    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    def num_processes(self, kind: str) -> int:
        """As they tell Redis of themselves."""
        with self.redis as client:
            return len(list(client.scan_iter(match=process_key(DEFAULT_REDIS_PREFIX, f"{kind}*"))))

    def request_id(self) -> str:
        """That of a request which goes on for a while."""
        body = {"model": "default", "messages": [{"role": "user", "content": "Tell a story."}], "background": True}
        made = self.ask("POST", "/v1/chat/completions", body | {"max_tokens": 1000, "ignore_eos": True}).json()["id"]
        self._requests.append(made)
        return made

    def tidy(self) -> None:
        """As it was: no API key, no request, the first desired state, the agent ready."""
        with self.redis as client:
            client.delete(api_keys_key(DEFAULT_REDIS_PREFIX))
        wait_for(self._answers, "no key is needed any more")
        while self._requests:
            self.ask("POST", f"/v1/requests/{self._requests.pop()}/cancel")
        if self.ask("GET", STATE).json() != self._first_state:
            self.ask("PUT", STATE, self._first_state)
        if self.agents() and self.agents()[0]["is_draining"]:
            self.ask("POST", f"/api/v1/agent/{self.agents()[0]['id']}/undrain")
        self.agent_id()
        wait_for(self._ready_agents, "agent-1 is ready again")

    def _answers(self) -> bool:
        return httpx.get(self.management_url + STATE, timeout=30, trust_env=False).is_success


class Shell:
    """Types the blocks of one page, in a folder of its own. Variables and folder last from command to command."""

    def __init__(self, fleet: DocFleet, folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder
        self._python, self._is_new = "", False
        self._keys: list[str] = []
        self._key_ids: list[str] = []
        (folder / "database").mkdir()
        for name in MODELS:
            (folder / name).symlink_to(find_starter())
        # A refusal is a failure, and nothing waits for ever.
        (folder / ".curlrc").write_text("fail-with-body\nmax-time = 60\nshow-error\n")
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PADDLER_", "OPENAI_"))}
        self._environment = own | {
            "PADDLER_REDIS_URL": fleet.redis_url,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CURL_HOME": str(folder),
            "PADDLER_STATE_DIR": str(folder / "state"),
            "PADDLER_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            "PADDLER_MANAGEMENT_ADDR": fleet.ports["127.0.0.1:8060"],
            "COLUMNS": "120",
            "PWD": str(folder),
        }

    def type(self, block: Block) -> None:
        """Raises `AssertionError` where a command fails, with what it said. The Python of a page is one program, which
        runs before the next command, or at the end."""
        if block.language == "python":
            self._python += f"# {block.where}\n{self._known(block.code)}\n"
            self._is_new = True
            return
        self.end()
        for command in block.commands:
            assert not DANGEROUS.search(command), f"{block.where}: say why this is not run: {command}"
            ours = list(own_commands(command))
            if command.startswith("paddler ") and ours and ours[0][0] in SERVERS:
                self._serve(block.where, ours[0][0], self._known(_without_addresses(command)))
            elif ENDLESS.search(command):
                self._start(block.where, self._known(command), bool)
            else:
                self._run(block.where, self._known(command))

    def end(self) -> None:
        """The Python so far, if it has not run yet."""
        if self._is_new:
            self._is_new = False
            (self._folder / "page.py").write_text(self._python)
            self._run("the page's Python", "python page.py")

    def _known(self, command: str) -> str:
        for documented, real in self._fleet.ports.items():
            command = command.replace(documented, real)
        command = re.sub(r"redis://[\w.]+:6379/0", self._fleet.redis_url, command)
        if "$ID" in command or "agent-1" in command:
            self._environment["ID"] = self._fleet.agent_id()
        if "If-Match" in command:
            version = self._fleet.ask("GET", STATE).headers["etag"]
            command = re.sub(r'If-Match: "\d+"', f"If-Match: {version}", command)
        command = re.sub(r"/models/[\w-]+\.gguf", str(self._folder / MODELS[0]), command)
        command = re.sub(r"file:///(?:\w+/)+", f"file://{self._folder}/database/", command)
        if "$REQUEST_ID" in command:
            self._environment["REQUEST_ID"] = self._fleet.request_id()
        if self._keys:
            command = re.sub(r"\b[0-9a-f]{12}\b", self._key_ids[-1], command)
            command = command.replace("pd-...", self._keys[0])
        return command

    def _run(self, where: str, command: str) -> None:
        after = self._folder / ".environment"
        # Who reads only the beginning breaks the pipe of who writes.
        pipefail = "" if re.search(r"\| head\b[^|]*$", command) else "-o pipefail"
        script = f"set -a {pipefail}\ntrap 'env -0 >{after}' EXIT\n{command}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._environment["PWD"],
            env=self._environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=90,
            check=False,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"{where}: {command}\nended with {done.returncode}:\n{said[-2000:]}"
        pairs = (pair.partition("=") for pair in after.read_text().split("\0") if pair)
        self._environment = {name: value for name, _, value in pairs if name != "_"}
        self._keys += re.findall(r"\bpd-[\w.-]{16,}", said)
        if re.search(r"-X DELETE \S*/agent/|agents remove", command):
            self._fleet.wait_gone(self._environment["ID"])
        if "keys create" in command:
            self._key_ids += re.findall(r"\b[0-9a-f]{12}\b", said)

    def _serve(self, where: str, name: str, command: str) -> None:
        """Start it, see it do its work, and tell it to stop: it ends with 0."""
        before = self._fleet.num_processes(name)
        sign = SERVERS[name]
        code = self._start(
            where, command, lambda said: sign in said if sign else self._fleet.num_processes(name) > before, serves=True
        )
        assert code == 0, f"{where}: {command}\nended with {code} when it was told to stop"

    def _start(self, where: str, command: str, is_there: Callable[[str], bool], *, serves: bool = False) -> int:
        """The exit code after SIGTERM, sent once `is_there` of what it has said. What `serves` listens anywhere."""
        log = self._folder / ".log"
        # What is drawn anew is drawn on a terminal alone, or where colours are forced.
        free = {f"PADDLER_{name}_ADDR": "127.0.0.1:0" for name in ADDRESSES} if serves else {"FORCE_COLOR": "1"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self._environment["PWD"],
                env=self._environment | free,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_for(lambda: is_there(log.read_text()) or process.poll() is not None, f"{command} does its work")
            assert is_there(log.read_text()), f"{where}: {command}\nended too early:\n{log.read_text()[-2000:]}"
            os.killpg(process.pid, signal.SIGTERM)
            return process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _without_addresses(command: str) -> str:
    """Of a server: it listens where there is room."""
    return re.sub(r"(-addr[ =])[\w.]+:80\d\d\b", r"\g<1>127.0.0.1:0", command.replace("\\\n", " "))


def wait_for(predicate: Callable[[], Any], what: str) -> Any:
    return asyncio.run(wait_until(predicate, timeout_s=60, poll_s=0.05, what=what))
