"""What is said of PEM files before anything depends on them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from paddler.certificates import CertificateProblem, Named, check_authorities, check_certificates, check_pair

NOW = datetime(2030, 6, 1, tzinfo=UTC)


def _issued(folder: Path, *, ends: datetime, begins: datetime = NOW - timedelta(days=1)) -> tuple[Path, Path]:
    issued = trustme.CA().issue_cert("localhost", not_before=begins, not_after=ends)
    cert, key = folder / "cert.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key


def _check(cert: Path, key: Path | None) -> float:
    return check_pair(
        Named("--tls-cert", cert), None if key is None else Named("--tls-key", key), NOW.timestamp()
    ).ends_s


def test_a_pair_that_fits_says_how_long(tmp_path: Path) -> None:
    end = NOW + timedelta(days=90)
    cert, key = _issued(tmp_path, ends=end)
    assert _check(cert, key) == end.timestamp()
    together = tmp_path / "both.pem"
    together.write_bytes(cert.read_bytes() + key.read_bytes())
    assert _check(together, None) == end.timestamp()
    found = check_certificates(Named("--tls-cert", cert), NOW.timestamp())
    assert not found.ends_soon(NOW.timestamp())
    assert found.ends_soon(NOW.timestamp() + 80 * 86_400)


def _missing(cert: Path, _key: Path) -> None:
    cert.unlink()


def _no_pem(cert: Path, _key: Path) -> None:
    cert.write_text("hello")


def _no_key(_cert: Path, key: Path) -> None:
    key.write_text("hello")


def _other_key(cert: Path, _key: Path) -> None:
    trustme.CA().issue_cert("localhost").cert_chain_pems[0].write_to_path(cert)


def _encrypted(_cert: Path, key: Path) -> None:
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key.write_bytes(plain.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (_missing, "--tls-cert .*cert.pem: No such file"),
        (_no_pem, "no certificate in PEM form"),
        (_no_key, "--tls-key .*key.pem: there is no private key in PEM form"),
        (_other_key, "is not the key of the certificate in --tls-cert"),
        (_encrypted, "the key is encrypted; .*openssl pkey"),
    ],
)
def test_what_is_wrong_with_a_pair(tmp_path: Path, break_it: Callable[[Path, Path], None], complaint: str) -> None:
    cert, key = _issued(tmp_path, ends=NOW + timedelta(days=90))
    break_it(cert, key)
    with pytest.raises(CertificateProblem, match=complaint):
        _check(cert, key)


def test_a_certificate_out_of_its_time(tmp_path: Path) -> None:
    with pytest.raises(CertificateProblem, match=r"expired on 2030-05-31 00:00 UTC; have a new one issued"):
        _check(*_issued(tmp_path, ends=NOW - timedelta(days=1), begins=NOW - timedelta(days=9)))
    with pytest.raises(CertificateProblem, match=r"not valid before 2030-06-02 .*is the clock right"):
        _check(*_issued(tmp_path, begins=NOW + timedelta(days=1), ends=NOW + timedelta(days=9)))


def test_authorities_must_be_some(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("")
    with pytest.raises(CertificateProblem, match="no certificate in PEM form"):
        check_authorities(Named("--redis-tls-ca", path), NOW.timestamp())
    trustme.CA().cert_pem.write_to_path(path)
    check_authorities(Named("--redis-tls-ca", path), NOW.timestamp())
