"""Where Redis is and how one gets in. All of it is one URL, so that whoever is given that needs nothing else.

| URL | what |
|---|---|
| `redis://[user[:password]@]host[:port][/db]` | one server |
| `rediss://...` | the same by TLS; certificate and host name are checked |
| `unix:///path[?db=0]` | a socket of this machine |
| `redis+sentinel://[user[:password]@]host[:port][,host[:port]...]/service[/db]` | whichever server Sentinel names |
| `rediss+sentinel://...` | the same by TLS, to the Sentinels as well |

| parameter | what |
|---|---|
| `password_file` | the password is the contents of this file, read anew for each connection |
| `ssl_ca_certs` | who may have signed the certificates: only these; by default whom this machine trusts |
| `ssl_certfile`, `ssl_keyfile` | our own certificate, for a server that asks for one |
| `ssl_check_hostname=no` | a certificate of another name will do, if it is signed by whom it must |
| `sentinel_username`, `sentinel_password_file` | for Sentinels that want their own |
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from msgspec import Struct

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
DEFAULT_PORT = 6379
SENTINEL_PORT = 26379

_TLS_PARAMETERS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_SENTINEL_PARAMETERS = ("sentinel_username", "sentinel_password_file")
_PARAMETERS = ("db", "password_file", *_TLS_PARAMETERS, *_SENTINEL_PARAMETERS)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/,@]+)(?::(\d{1,5}))?")


class Login(Struct, frozen=True):
    """An ACL user; None is `default`. The file comes before the password."""

    username: str | None = None
    password: str | None = None
    password_file: Path | None = None

    @property
    def is_needed(self) -> bool:
        return bool(self.username or self.password or self.password_file)


class Tls(Struct, frozen=True):
    """PEM files. `ca` None: whom this machine trusts."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    checks_hostname: bool = True


class Location(Struct, frozen=True, kw_only=True):
    """`hosts` are host and port: of the server, or of the Sentinels if there is a `service`. None for a socket."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str | None = None
    db: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: Tls | None = None

    @property
    def files(self) -> list[Path]:
        """What must be readable."""
        tls = self.tls or Tls()
        logins = (self.login.password_file, self.sentinel_login.password_file)
        return [path for path in (*logins, tls.ca, tls.cert, tls.key) if path is not None]


def locate(url: str) -> Location:
    """Read a URL. Raises `ValueError` saying what is wrong and what would be right, and never a password."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("expected redis://host:port/db, rediss://..., unix:///path?db=0 or redis+sentinel://...")
    values = _parameters(parts)
    login = Login(
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        _path(values, "password_file"),
    )
    if login.password and login.password_file:
        raise ValueError("a password and password_file: one of them is too many")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("unix:// needs the path of a socket, such as unix:///run/valkey.sock?db=0")
        return Location(path=unquote(parts.path), db=_db(values.get("db", "")), login=login)
    tls = _tls(values) if parts.scheme.startswith("rediss") else None
    where = parts.netloc.rpartition("@")[2]
    segments = [unquote(one) for one in parts.path.split("/") if one]
    if parts.scheme.endswith("+sentinel"):
        if not segments or len(segments) > 2:
            raise ValueError("a Sentinel URL ends with the name of the service, and perhaps a database: /mymaster/0")
        return Location(
            hosts=tuple(_host(one, SENTINEL_PORT) for one in where.split(",")),
            service=segments[0],
            db=_db(values.get("db", "") or "".join(segments[1:])),
            login=login,
            sentinel_login=Login(values.get("sentinel_username"), None, _path(values, "sentinel_password_file")),
            tls=tls,
        )
    if len(segments) > 1:
        raise ValueError(f"the path is a database's number, such as /0, not {parts.path!r}")
    host = _host(where or "localhost", DEFAULT_PORT)
    return Location(hosts=(host,), db=_db(values.get("db", "") or "".join(segments)), login=login, tls=tls)


def with_access(
    url: str,
    *,
    username: str | None = None,
    password_file: Path | None = None,
    tls_ca: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> str:
    """The URL with what flags say beside it. Raises `ValueError` for what does not go together."""
    parts = urlsplit(url)
    if username is not None:
        if parts.username:
            raise ValueError("--redis-username: the URL has a user already")
        password = f":{parts.password}" if parts.password else ""
        host = parts.netloc.rpartition("@")[2]
        parts = parts._replace(netloc=f"{quote(username, safe='')}{password}@{host}")
    given = {
        "password_file": password_file,
        "ssl_ca_certs": tls_ca,
        "ssl_certfile": tls_cert,
        "ssl_keyfile": tls_key,
    }
    added = {name: str(path.absolute()) for name, path in given.items() if path is not None}
    if any(name.startswith("ssl_") for name in added) and not parts.scheme.startswith("rediss"):
        raise ValueError("--redis-tls-... need TLS: a URL that begins with rediss://")
    if added:
        parts = parts._replace(query=urlencode({**dict(parse_qsl(parts.query)), **added}, safe="/"))
    whole = parts.geturl()
    # urlsplit forgets that nothing stood between the slashes of unix:///path.
    whole = whole.replace("unix:/", "unix:///", 1) if whole.startswith("unix:/") and "unix://" not in whole else whole
    locate(whole)
    return whole


def _parameters(parts: SplitResult) -> dict[str, str]:
    values = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(values) - set(_PARAMETERS)):
        known = ", ".join(_PARAMETERS)
        hint = " (a password belongs into a file: password_file)" if "password" in unknown else ""
        raise ValueError(f"unknown parameter {unknown[0]!r}{hint}; there are {known}")
    if not parts.scheme.startswith("rediss") and (tls := sorted(set(values) & set(_TLS_PARAMETERS))):
        raise ValueError(f"{tls[0]} needs TLS: rediss://")
    if not parts.scheme.endswith("+sentinel") and (own := sorted(set(values) & set(_SENTINEL_PARAMETERS))):
        raise ValueError(f"{own[0]} needs Sentinels: redis+sentinel://")
    return values


def _tls(values: dict[str, str]) -> Tls:
    cert, key = _path(values, "ssl_certfile"), _path(values, "ssl_keyfile")
    if key is not None and cert is None:
        raise ValueError("a key without a certificate")
    check = values.get("ssl_check_hostname", "yes").lower()
    if check not in ("yes", "true", "1", "no", "false", "0"):
        raise ValueError(f"ssl_check_hostname is yes or no, not {check!r}")
    return Tls(_path(values, "ssl_ca_certs"), cert, key, checks_hostname=check in ("yes", "true", "1"))


def _path(values: dict[str, str], name: str) -> Path | None:
    return Path(values[name]) if values.get(name) else None


def _host(text: str, default_port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or 0) > 65535:
        raise ValueError(f"{text!r} is not host:port")
    return unquote(found[1].strip("[]")), int(found[2] or default_port)


def _db(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r} is no number of a database")
    return int(text or 0)
