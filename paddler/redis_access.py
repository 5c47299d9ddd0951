"""Whether the files that a Redis URL names can be used: said at the start, not at the first connection."""

from __future__ import annotations

from paddler.certificates import Named, check_authorities, check_pair
from paddler.store.location import Location, Login

FLAGS = ("--redis-password-file", "--redis-tls-ca", "--redis-tls-cert", "--redis-tls-key")


def check_access(location: Location, now_s: float, *, names: tuple[str, str, str, str] = FLAGS) -> None:
    """`names` are what the user calls the password's file, the authorities', certificate's and key's. Raises
    `ValueError`, `CertificateProblem` among it, in one line without its full stop."""
    password, ca, cert, own_key = names
    _check_password(location.login, password)
    _check_password(location.sentinel_login, "sentinel_password_file")
    tls = location.tls
    if tls is None:
        return
    if tls.ca is not None:
        check_authorities(Named(ca, tls.ca), now_s)
    if tls.cert is not None:
        key = None if tls.key is None else Named(own_key, tls.key)
        check_pair(Named(cert, tls.cert), key, now_s)


def _check_password(login: Login, flag: str) -> None:
    path = login.password_file
    if path is None:
        return
    try:
        password = path.read_text().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{flag} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{flag} {path}: it is no text") from None
    if not password or "\n" in password:
        raise ValueError(f"{flag} {path}: expected the password alone, on one line")
