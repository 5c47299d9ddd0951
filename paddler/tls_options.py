"""The flags of TLS for services: the balancer's, and `paddler up`'s, which passes them on."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from msgspec import Struct

from paddler.certificates import CertificateProblem, Named, Validity, check_authorities, check_pair
from paddler.settings import option

_FILE = click.Path(dir_okay=False, path_type=Path)
_F = TypeVar("_F", bound=Callable[..., Any])


def tls_options(function: _F) -> _F:
    """Adds `tls_cert`, `tls_key` and `tls_client_ca`, the arguments of `tls_files`."""
    for one in (
        option(
            "--tls-client-ca", type=_FILE, help="Only take clients whose certificate these authorities (PEM) signed."
        ),
        option("--tls-key", type=_FILE, help="The key of that certificate, if it is not in the same file."),
        option("--tls-cert", type=_FILE, help="Serve HTTPS with this certificate (PEM), its chain behind it."),
    ):
        function = one(function)
    return function


class TlsFiles(Struct, frozen=True):
    """What services are served with. `client_ca` None: clients need no certificate."""

    cert: Path
    key: Path | None = None
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.cert, self.key, self.client_ca) if path is not None)

    def check(self, now_s: float) -> Validity:
        """Raises `CertificateProblem`."""
        key = None if self.key is None else Named("--tls-key", self.key)
        found = check_pair(Named("--tls-cert", self.cert), key, now_s)
        if self.client_ca is not None:
            check_authorities(Named("--tls-client-ca", self.client_ca), now_s)
        return found

    def load_into(self, context: ssl.SSLContext) -> None:
        """New connections have what the files say now, those that are open go on with what they began with. OpenSSL
        only adds to the authorities of a context. Raises `CertificateProblem`: then something was checked that has
        changed since."""
        try:
            context.load_cert_chain(self.cert, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except OSError as error:
            raise CertificateProblem(f"--tls-cert {self.cert}: {error}") from None

    def new_context(self) -> ssl.SSLContext:
        """For the server's side: TLS 1.2 or later, as Python has it. Raises `CertificateProblem`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        self.load_into(context)
        return context


def tls_files(tls_cert: Path | None, tls_key: Path | None, tls_client_ca: Path | None, now_s: float) -> TlsFiles | None:
    """What the flags name, checked; None when nothing is served by TLS. Raises `click.UsageError`."""
    if tls_cert is None:
        if tls_key is not None or tls_client_ca is not None:
            raise click.UsageError("--tls-key and --tls-client-ca need --tls-cert, the certificate of the services.")
        return None
    files = TlsFiles(tls_cert, tls_key, tls_client_ca)
    try:
        files.check(now_s)
    except CertificateProblem as error:
        raise click.UsageError(f"{error}.") from None
    return files
