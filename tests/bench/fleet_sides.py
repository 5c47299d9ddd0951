"""What the fleet benchmark compares, each on loopback: Paddler with two agents, and two servers behind nginx.

The servers behind nginx are llama-server, or in the smallest size plain streams that need no model. Each side has
servers of its own, and all run all the time: idle ones cost nothing, and none finds in a cache what another was asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import httpx
from msgspec import Struct

from tests.bench.http_cost import plain_server
from tests.bench.llama_server import find_binary, free_port, serving
from tests.bench.queue_fleet import Child, new_valkey, until

PATIENCE_MS = 60_000
"""What nginx waits for a word of a server before it answers 504, by default; as long a request may wait with us."""


PEER = "nginx least_conn"


class Sizes(Struct, frozen=True, kw_only=True):
    """Of each server and each agent. `model` None is the smallest size: the scripted engine and plain streams."""

    model: Path | None
    slots: int = 2
    context_size: int = 4096
    threads: int = 1
    servers: int = 2

    @property
    def words(self) -> str:
        each = f"{self.slots} slots, {self.context_size} tokens of context and {self.threads} thread(s)"
        return f"{self.servers} agents or servers with {each} each"


def find_nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise SystemExit("nginx is missing: apt-get install -y --no-install-recommends nginx-light")
    return found


@contextlib.contextmanager
def paddler_fleet(sizes: Sizes, folder: Path) -> Generator[str]:
    """Valkey, a balancer, a worker and the agents until the context ends; gives the URL."""
    with contextlib.ExitStack() as stack:
        valkey = new_valkey()
        valkey.start()
        stack.callback(valkey.close)

        def start(name: str, *arguments: str) -> Child:
            child = Child(folder / f"{name}.log", *arguments, "--redis-url", valkey.url, "--redis-prefix", "bench")
            stack.callback(child.stop)
            return child

        balancer = start(
            "balancer",
            *("balancer", "--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"),
            *("--max-buffered-requests", "1000", "--buffered-request-timeout", str(PATIENCE_MS)),
            *("--inference-item-timeout", str(PATIENCE_MS)),
        )
        start("worker", "worker")
        engine = ["--engine", "scripted", "--scripted-step", "5"]
        if sizes.model is not None:
            # As much as llama-server gives its prompt cache by default.
            engine = ["--model", str(sizes.model), "--threads", str(sizes.threads), "--kv-ram", "8GiB"]
        rest = ["--slots", str(sizes.slots), "--context-size", str(sizes.context_size)]
        agents = [start(f"agent{number}", "agent", *engine, *rest) for number in range(sizes.servers)]
        for agent in agents:
            agent.wait_for("registered")
        url = f"http://{balancer.wait_for('listening', service='inference')['address']}"
        until(lambda: httpx.get(f"{url}/v1/models", trust_env=False).json()["data"], "an agent has its model")
        yield url


@contextlib.contextmanager
def behind_nginx(sizes: Sizes, folder: Path, method: str) -> Generator[str]:
    """`method` is a line of nginx's `upstream` block, empty for its default, round robin. Gives the URL."""
    with contextlib.ExitStack() as stack:
        ports = [_server(sizes, folder / f"server{number}.log", stack) for number in range(sizes.servers)]
        yield stack.enter_context(nginx(ports, method, folder))


def _server(sizes: Sizes, log: Path, stack: contextlib.ExitStack) -> int:
    if sizes.model is None:
        port, _ = stack.enter_context(plain_server(5.0))
        return port
    return stack.enter_context(
        serving(
            find_binary(),
            sizes.model,
            slots=sizes.slots,
            context_size=sizes.context_size,
            threads=sizes.threads,
            log=log,
        )
    )


@contextlib.contextmanager
def nginx(ports: list[int], method: str, folder: Path) -> Generator[str]:
    """Of the test's own, with its files in `folder`; as streams need it (no buffering), else by its defaults."""
    port = free_port()
    servers = "".join(f"    server 127.0.0.1:{one};\n" for one in ports)
    config = folder / "nginx.conf"
    config.write_text(f"""\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 32m;
  upstream servers {{
    {method}
{servers}    keepalive 32;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://servers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
""")
    command = [find_nginx(), "-c", str(config), "-p", str(folder), "-e", f"{folder}/nginx-error.log"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(url, process), "nginx answers")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise SystemExit("nginx ended (its words are above)")
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(url, trust_env=False)
        return True
    return False


@contextlib.contextmanager
def all_sides(sizes: Sizes) -> Generator[dict[str, str]]:
    """URLs by side, ours first."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paddler-bench-")))
        root.chmod(0o755)  # nginx's worker is another user where it is started by root

        def folder(name: str) -> Path:
            made = root / name
            made.mkdir()
            return made

        yield {
            "Paddler": stack.enter_context(paddler_fleet(sizes, folder("paddler"))),
            PEER: stack.enter_context(behind_nginx(sizes, folder("least"), "least_conn;")),
            "nginx round robin": stack.enter_context(behind_nginx(sizes, folder("robin"), "")),
        }
