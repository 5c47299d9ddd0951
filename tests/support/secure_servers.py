"""Servers that ask who one is: Redis with TLS (Debian's, as the packaged Valkey is built without), and Sentinels."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import redis
import trustme
from msgspec import Struct

from paddler.testing.servers import RedisServer


class Certificates(Struct, frozen=True):
    """Files of one authority: its own, a server's for `localhost`, and a client's."""

    ca: Path
    cert: Path
    key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    authority = trustme.CA()
    found = Certificates(*(folder / name for name in ("ca", "cert", "key", "client", "client_key")))
    authority.cert_pem.write_to_path(found.ca)
    for issued, cert, key in (
        (authority.issue_cert("localhost"), found.cert, found.key),
        (authority.issue_cert("client@paddler"), found.client, found.client_key),
    ):
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def tls_arguments(port: int, certificates: Certificates) -> dict[str, str]:
    return {
        "tls-port": str(port),
        "tls-cert-file": str(certificates.cert),
        "tls-key-file": str(certificates.key),
        "tls-ca-cert-file": str(certificates.ca),
        "tls-auth-clients": "yes",
    }


class TlsRedis(RedisServer):
    """A server that is also reached by TLS at `port`, and wants a certificate of its clients there."""

    def __init__(self, binary: str, certificates: Certificates) -> None:
        super().__init__(binary)
        self.port = free_port()
        self.arguments = tls_arguments(self.port, certificates)


class Sentinel:
    """Watches one service, and may decide alone: there is but one."""

    def __init__(
        self,
        binary: str,
        folder: Path,
        primary_port: int,
        service: str = "main",
        certificates: Certificates | None = None,
    ) -> None:
        """With `certificates` it speaks TLS alone, to the primary as well."""
        self.port = free_port()
        self.service = service
        config = folder / "sentinel.conf"
        listening = f"port {self.port}"
        if certificates is not None:
            arguments = {"port": "0", **tls_arguments(self.port, certificates), "tls-replication": "yes"}
            listening = "\n".join(f"{name} {value}" for name, value in arguments.items())
        config.write_text(
            f"{listening}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {service} 127.0.0.1 {primary_port} 1\n"
            f"sentinel down-after-milliseconds {service} 500\nsentinel failover-timeout {service} 5000\n"
        )
        self._log = folder / "sentinel.log"
        with self._log.open("ab") as log:
            command = [binary, str(config), "--sentinel"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def knows_replica(self) -> bool:
        """Until then it could promote nobody."""
        client = redis.Redis(port=self.port)
        try:
            return bool(client.sentinel_slaves(self.service))
        except redis.RedisError:
            assert self.process.poll() is None, self._log.read_text()
            return False
        finally:
            client.close()

    def fail_over(self) -> None:
        """As for maintenance."""
        client = redis.Redis(port=self.port)
        client.execute_command("SENTINEL", "FAILOVER", self.service)
        client.close()

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


class Pair:
    """A primary, its replica and a Sentinel, all on ports of 127.0.0.1."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.primary, self.replica = RedisServer(binary), RedisServer(binary)
        self.ports = free_port(), free_port()
        self.primary.arguments = {"port": str(self.ports[0]), "bind": "127.0.0.1", "repl-diskless-sync-delay": "0"}
        self.replica.arguments = {
            "port": str(self.ports[1]),
            "bind": "127.0.0.1",
            "replicaof": f"127.0.0.1 {self.ports[0]}",
            "repl-diskless-sync-delay": "0",
        }
        self.primary.start()
        self.replica.start()
        self.sentinel = Sentinel(binary, folder, self.ports[0])
        end = time.monotonic() + 60
        while not (self.is_synced() and self.sentinel.knows_replica()):
            assert time.monotonic() < end, "the replica is not there"
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{self.sentinel.service}/0"

    def is_synced(self) -> bool:
        return self._replication(self.ports[1]).get("master_link_status") == "up"

    def replica_has(self, key: str) -> bool:
        client = redis.Redis(port=self.ports[1])
        try:
            return bool(client.exists(key))
        finally:
            client.close()

    def _replication(self, port: int) -> dict[str, Any]:
        client = redis.Redis(port=port)
        try:
            return cast("dict[str, Any]", client.info("replication"))
        except redis.RedisError:
            return {}
        finally:
            client.close()

    def close(self) -> None:
        self.sentinel.close()
        self.primary.close()
        self.replica.close()
