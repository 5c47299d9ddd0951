"""Services by TLS: nothing else is spoken there, and a certificate is renewed under running connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme
from balancer_process import BalancerProcess, StartBalancer, balancer_processes
from click.testing import CliRunner
from native_harness import SOCKET
from secure_servers import Certificates
from websockets.asyncio.client import connect as connect_web_socket

from api.serve import command
from api.tls import ServingTls
from paddler.clock import SystemClock
from paddler.store.client import Store
from paddler.tls_options import TlsFiles

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.xdist_group("secure serving")]


@pytest.fixture
async def start() -> AsyncIterator[StartBalancer]:
    async with balancer_processes() as start:
        yield start


def client_context(files: Certificates, *, has_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca)
    if has_certificate:
        context.load_cert_chain(files.client, files.client_key)
    return context


def https(balancer: BalancerProcess, context: ssl.SSLContext, service: str = "inference") -> httpx.AsyncClient:
    port = balancer.addresses[service].rpartition(":")[2]
    return httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=context, timeout=30, trust_env=False)


async def test_every_service_speaks_tls_alone(start: StartBalancer, store: Store, certificates: Certificates) -> None:
    flags = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
    balancer = await start(store, *flags, "--compat-openai-addr", "127.0.0.1:0", num_services=3)
    for service, path in (("inference", "/health"), ("openai", "/health"), ("management", "/health")):
        async with https(balancer, client_context(certificates), service) as client:
            assert (await client.get(path)).text == "OK"
        async with balancer.http(service) as plain:
            with pytest.raises(httpx.HTTPError):
                await plain.get(path)
    # A socket, too; and a client that offers HTTP/2 is answered in HTTP/1.1.
    context = client_context(certificates)
    context.set_alpn_protocols(["h2", "http/1.1"])
    url = f"wss://localhost:{balancer.addresses['inference'].rpartition(':')[2]}{SOCKET}"
    async with connect_web_socket(url, ssl=context, proxy=None) as socket:
        told = socket.transport.get_extra_info("ssl_object")
        assert told.selected_alpn_protocol() == "http/1.1"
        assert told.version() in ("TLSv1.2", "TLSv1.3")
    balancer.process.terminate()
    assert balancer.process.stderr is not None
    log = (await balancer.process.stderr.read()).decode()
    assert "Traceback" not in log
    assert all(json.loads(line)["level"] in ("info", "warning") for line in log.splitlines())


async def test_clients_need_a_certificate(start: StartBalancer, store: Store, certificates: Certificates) -> None:
    flags = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
    balancer = await start(store, *flags, "--tls-client-ca", str(certificates.ca))
    async with https(balancer, client_context(certificates, has_certificate=True)) as client:
        assert (await client.get("/health")).text == "OK"
    async with https(balancer, client_context(certificates)) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get("/health")


async def _served(client: httpx.AsyncClient) -> bytes:
    """The certificate of the connection over which this was answered."""
    answer = await client.get("/health")
    assert answer.text == "OK"
    found = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert found is not None
    return found


async def test_a_certificate_is_renewed(start: StartBalancer, store: Store, tmp_path: Path) -> None:
    """SIGHUP: new connections see the new one, the old connection stays. What is no certificate changes nothing."""
    authority = trustme.CA()
    files = {name: tmp_path / name for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])

    def renew() -> None:
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(files["cert"])
        issued.private_key_pem.write_to_path(files["key"])

    renew()
    context = ssl.create_default_context(cafile=files["ca"])
    balancer = await start(store, "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"]))

    async def hang_up(event: str) -> None:
        balancer.process.send_signal(signal.SIGHUP)
        assert balancer.process.stderr is not None
        while json.loads(await asyncio.wait_for(balancer.process.stderr.readline(), 30))["event"] != event:
            pass

    async with https(balancer, context) as old:
        before = await _served(old)
        renew()
        await hang_up("certificate loaded again")
        async with https(balancer, context) as new:
            after = await _served(new)
        assert after != before
        assert await _served(old) == before
        files["key"].write_text("no key")
        await hang_up("the certificate cannot be loaded again, the old one stays")
        async with https(balancer, context) as new:
            assert await _served(new) == after
        assert await _served(old) == before
    assert balancer.process.returncode is None


async def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    """Nobody needs to send a signal; also when the name points elsewhere, as Kubernetes changes its secrets."""
    authority = trustme.CA()
    versions = [tmp_path / "one", tmp_path / "two"]
    for folder in versions:
        folder.mkdir()
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(folder / "cert")
        issued.private_key_pem.write_to_path(folder / "key")
    authority.cert_pem.write_to_path(tmp_path / "ca")
    current = tmp_path / "current"
    current.symlink_to(versions[0])
    tls = ServingTls(TlsFiles(current / "cert", current / "key"), SystemClock())
    trusting = ssl.create_default_context(cafile=tmp_path / "ca")

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context) as server:
        port = server.sockets[0].getsockname()[1]

        async def served() -> bytes:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
            found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return found

        first = await served()
        tls.run_once()
        assert await served() == first
        (tmp_path / "next").symlink_to(versions[1])
        os.replace(tmp_path / "next", current)
        tls.run_once()
        second = await served()
        assert second != first
        shutil.copy(versions[0] / "key", versions[1] / "key")  # half of a renewal
        tls.run_once()
        assert await served() == second
        shutil.copy(versions[0] / "cert", versions[1] / "cert")
        tls.run_once()
        assert await served() == first


def test_flags_that_cannot_be_used(certificates: Certificates, tmp_path: Path) -> None:
    for flags, complaint in (
        (["--tls-key", str(certificates.key)], "need --tls-cert"),
        (["--tls-client-ca", str(certificates.ca)], "need --tls-cert"),
        (["--tls-cert", str(tmp_path / "gone")], "No such file"),
        (["--tls-cert", str(certificates.cert)], "no private key in PEM form in it, and no other file was named"),
        (
            ["--tls-cert", str(certificates.cert), "--tls-key", str(certificates.client_key)],
            "is not the key of the certificate",
        ),
    ):
        result = CliRunner().invoke(command, flags)
        assert result.exit_code == 2, result.output
        assert complaint in " ".join(result.output.replace("│", " ").split())
