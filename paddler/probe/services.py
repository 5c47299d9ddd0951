"""Asks a service of the balancer on this machine, by the standard library alone."""

from __future__ import annotations

import http.client
import json
import ssl

from paddler.settings import Address

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a service that listens everywhere is reached."""
WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
"""How OpenSSL calls it when a client shows none (TLS 1.3, 1.2)."""


def trouble_of_service(
    address: Address, path: str, *, is_tls: bool, wants_client: bool, timeout_s: float
) -> str | None:
    """Why `GET path` is not answered with 200, or None.

    By TLS the certificate is not checked: it is for the service's name, and this is the loopback. Of a service that
    wants a certificate of its clients (`wants_client`) only a handshake is asked: we have none, and it takes its event
    loop to refuse us."""
    host = WILDCARDS.get(address.host, address.host)
    connection: http.client.HTTPConnection
    if is_tls:
        connection = http.client.HTTPSConnection(host, address.port, timeout=timeout_s, context=_unchecked())
    else:
        connection = http.client.HTTPConnection(host, address.port, timeout=timeout_s)
    try:
        if wants_client:
            connection.connect()
            return None
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(4096)
    except ssl.SSLError as error:
        if wants_client and any(word in (error.reason or "") for word in WANTS_CERTIFICATE):
            return None
        return f"TLS to {address} failed: {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{address} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{address}{path} answers {answer.status}: {_reason(body)}"


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(body: bytes) -> str:
    """What `/ready` says, else the beginning of the text."""
    try:
        return str(json.loads(body)["reason"])
    except (ValueError, KeyError, TypeError):
        return body[:100].decode(errors="replace")
