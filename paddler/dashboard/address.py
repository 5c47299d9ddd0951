"""Where the management service is, and how one gets in: the flags that say so."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import rich_click as click
from msgspec import Struct

from paddler.certificates import CertificateProblem, Named, check_authorities, check_pair
from paddler.settings import Address, option

DEFAULT_ADDRESS = "127.0.0.1:8060"

_FILE = click.Path(dir_okay=False, path_type=Path)
_F = TypeVar("_F", bound=Callable[..., Any])


class _Place(click.ParamType[str, str]):
    """`host:port`, or the URL of a service that is behind something else."""

    name = "host:port"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            if "://" not in value:
                return Address.parse(value).url.removeprefix("http://")
            url = httpx.URL(value)
        except (ValueError, httpx.InvalidURL) as error:
            self.fail(f"{error}", param, ctx)
        if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
            self.fail("This is neither host:port nor http(s)://host:port.", param, ctx)
        return value.rstrip("/")


class Access(Struct, frozen=True):
    """`url` is without a slash at its end. The file of the key is read anew for each call, so that a key can be
    rotated."""

    url: str
    key_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def shown(self) -> str:
        """As its user called it."""
        return self.url.removeprefix("http://")

    def api_key(self) -> str | None:
        """Raises `OSError`, and `ValueError` for a file without a key that can be sent."""
        if self.key_file is None:
            return None
        key = self.key_file.read_text().strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("it has to hold one API key, alone")
        return key

    def context(self) -> ssl.SSLContext | bool:
        """What `httpx` takes as `verify`."""
        if self.ca is None and self.cert is None:
            return True
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context


def access_options(function: _F) -> _F:
    """Adds the arguments of `read_access`."""
    for one in (
        option("--tls-client-key", type=_FILE, help="The key of that certificate, if it is not in the same file."),
        option("--tls-client-cert", type=_FILE, help="Our own certificate (PEM), for a balancer that asks for one."),
        option("--tls-ca", type=_FILE, help="Speak HTTPS, and trust these authorities (PEM) and no others."),
        option(
            "--api-key-file",
            type=_FILE,
            help="A file with a key of scope management, where keys are needed; read anew for each call.",
        ),
        option(
            "--management-addr",
            type=_Place(),
            default=DEFAULT_ADDRESS,
            help="A balancer's management service; https://HOST:PORT where its certificate is a public one.",
        ),
    ):
        function = one(function)
    return function


def read_access(
    management_addr: str,
    api_key_file: Path | None,
    tls_ca: Path | None,
    tls_client_cert: Path | None,
    tls_client_key: Path | None,
    now_s: float,
) -> Access:
    """The files are looked at. Raises `UsageError`."""
    is_tls = tls_ca is not None or tls_client_cert is not None
    if "://" not in management_addr:
        management_addr = f"http{'s' if is_tls else ''}://{management_addr}"
    if is_tls and management_addr.startswith("http://"):
        raise click.UsageError(f"--management-addr {management_addr} is not https://, which --tls-ca is for.")
    if tls_client_key is not None and tls_client_cert is None:
        raise click.UsageError("--tls-client-key needs --tls-client-cert, its certificate.")
    access = Access(management_addr, api_key_file, tls_ca, tls_client_cert, tls_client_key)
    try:
        if tls_ca is not None:
            check_authorities(Named("--tls-ca", tls_ca), now_s)
        if tls_client_cert is not None:
            key = None if tls_client_key is None else Named("--tls-client-key", tls_client_key)
            check_pair(Named("--tls-client-cert", tls_client_cert), key, now_s)
        access.api_key()
    except CertificateProblem as error:
        raise click.UsageError(f"{error}.") from None
    except OSError as error:
        raise click.UsageError(f"--api-key-file {api_key_file}: {error.strerror}.") from None
    except ValueError as error:
        raise click.UsageError(f"--api-key-file {api_key_file}: {error}.") from None
    return access
