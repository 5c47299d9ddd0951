"""Servers that ask who one is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from secure_servers import Certificates, TlsRedis, make_certificates

from paddler.testing.servers import RedisServer


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls_redis(redis7: RedisServer, certificates: Certificates) -> Iterator[TlsRedis]:
    """Debian's: the packaged Valkey is built without TLS. Skips as `redis7` does."""
    server = TlsRedis(redis7.binary, certificates)
    server.start()
    yield server
    server.close()
