"""PEM files of TLS, checked before anything depends on them: what OpenSSL says of a wrong one helps nobody.

`cryptography` is imported when a file is looked at: a tenth of a second that processes without TLS need not wait.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SOON_S = 14 * 86_400
"""A certificate that ends within so long is warned of."""


class CertificateProblem(ValueError):
    """A file cannot be used; the message names it and the remedy, in one line without its full stop."""


class Named(Struct, frozen=True):
    """A file, and the flag or parameter that named it."""

    flag: str
    path: Path

    def __str__(self) -> str:
        return f"{self.flag} {self.path}"


class Validity(Struct, frozen=True):
    """Times in seconds since the epoch."""

    begins_s: float
    ends_s: float

    @property
    def end(self) -> str:
        return datetime.fromtimestamp(self.ends_s, UTC).strftime("%Y-%m-%d %H:%M UTC")

    def ends_soon(self, now_s: float) -> bool:
        return self.ends_s - now_s < SOON_S


def check_certificates(file: Named, now_s: float) -> Validity:
    """Of the first certificate of a file; those behind it are its chain. Raises `CertificateProblem`."""
    return _checked_validity(file, _certificates(file)[0], now_s)


def check_authorities(file: Named, now_s: float) -> None:
    """That a file has certificates, one of them not expired. Raises `CertificateProblem`."""
    found = [_validity(one) for one in _certificates(file)]
    if all(one.ends_s <= now_s for one in found):
        raise CertificateProblem(f"{file}: all its certificates have expired, the last on {max(found, key=_end).end}")


def check_pair(cert: Named, key: Named | None, now_s: float) -> Validity:
    """Of a certificate with its key, which may stand in the same file. Raises `CertificateProblem`."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    first = _certificates(cert)[0]
    key_file = key or cert
    data = _read(key_file)
    try:
        private = load_pem_private_key(data, None)
    except TypeError:
        raise CertificateProblem(
            f"{key_file}: the key is encrypted; Paddler takes one without a passphrase "
            "(openssl pkey -in FILE -out PLAIN), readable by its own user alone"
        ) from None
    except ValueError:
        hint = "" if key else ", and no other file was named for it"
        raise CertificateProblem(f"{key_file}: there is no private key in PEM form in it{hint}") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        raise CertificateProblem(
            f"{key_file} is not the key of the certificate in {cert}; "
            "the server's own certificate stands first in its file, those of its authorities behind it"
        )
    return _checked_validity(cert, first, now_s)


def _checked_validity(file: Named, certificate: Certificate, now_s: float) -> Validity:
    found = _validity(certificate)
    if found.ends_s <= now_s:
        raise CertificateProblem(f"{file}: the certificate expired on {found.end}; have a new one issued")
    if found.begins_s > now_s:
        begin = datetime.fromtimestamp(found.begins_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
        raise CertificateProblem(f"{file}: the certificate is not valid before {begin}; is the clock right?")
    return found


def _validity(certificate: Certificate) -> Validity:
    return Validity(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def _end(validity: Validity) -> float:
    return validity.ends_s


def _certificates(file: Named) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    data = _read(file)
    try:
        return load_pem_x509_certificates(data)
    except ValueError:
        raise CertificateProblem(f"{file}: there is no certificate in PEM form in it") from None


def _read(file: Named) -> bytes:
    try:
        return file.path.read_bytes()
    except OSError as error:
        raise CertificateProblem(f"{file}: {error.strerror}") from None
