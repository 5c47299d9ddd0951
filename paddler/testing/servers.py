"""Real Redis and Valkey servers of a test's own: started on a unix socket, killed, restarted."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis


class RedisServer:
    """One server process with its data in a directory of its own.

    `binary` is any redis-server or valkey-server. AOF is on with the given `appendfsync`, as `paddler up` has it.
    """

    def __init__(self, binary: str, *, appendfsync: str = "everysec") -> None:
        self.binary = binary
        self.appendfsync = appendfsync
        # A socket path is limited to 107 bytes, which a test's own directory may exceed.
        self.directory = Path(tempfile.mkdtemp(prefix="paddler-redis-"))
        self.socket = self.directory / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.arguments: dict[str, str] = {}
        """Settings for the next start, beside those it always has."""

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Start and wait until it answers. Raises `RuntimeError` with the server's log when it does not."""
        log = (self.directory / "server.log").open("ab")
        fixed = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            "maxmemory-policy": "noeviction",
        }
        arguments = fixed | self.arguments
        command = [self.binary, *(part for key, value in arguments.items() for part in (f"--{key}", value))]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        client = redis.Redis.from_url(self.url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        end = time.monotonic() + 20
        while True:
            try:
                client.ping()  # pyright: ignore[reportUnknownMemberType]
                break
            except redis.RedisError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((self.directory / "server.log").read_text()) from None
                time.sleep(0.01)
        client.close()

    def kill(self) -> None:
        """SIGKILL, as a crash does it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def close(self) -> None:
        """Stop and remove the data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
