"""Where Redis is and how one gets in: one URL says it, flags add to it, and a password is never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddler.store.location import Location, Login, Tls, locate, with_access
from paddler.up.plan import without_password


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("redis://127.0.0.1:6379/0", Location(hosts=(("127.0.0.1", 6379),))),
        ("redis://[::1]:6380/3", Location(hosts=(("::1", 6380),), db=3)),
        ("redis://redis", Location(hosts=(("redis", 6379),))),
        ("unix:///run/valkey.sock?db=2", Location(path="/run/valkey.sock", db=2)),
        ("redis://ann:p%40ss@redis:1/", Location(hosts=(("redis", 1),), login=Login("ann", "p@ss"))),
        (
            "rediss://redis/1?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=no",
            Location(hosts=(("redis", 6379),), db=1, tls=Tls(Path("/ca.pem"), Path("/c.pem"), Path("/k.pem"), False)),
        ),
        (
            "redis+sentinel://ann@one,two:7/main/2?password_file=/p&sentinel_username=s&sentinel_password_file=/q",
            Location(
                hosts=(("one", 26379), ("two", 7)),
                service="main",
                db=2,
                login=Login("ann", None, Path("/p")),
                sentinel_login=Login("s", None, Path("/q")),
            ),
        ),
        ("rediss+sentinel://[::1]:5/main", Location(hosts=(("::1", 5),), service="main", tls=Tls())),
    ],
)
def test_what_a_url_says(url: str, location: Location) -> None:
    assert locate(url) == location


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://redis", "expected redis://"),
        ("redis://redis:99999", "not host:port"),
        ("redis://redis/one", "no number of a database"),
        ("redis://redis/1/2", "a database's number"),
        ("redis://redis?password=secret", "password_file"),
        ("redis://redis?socket_timeout=5", "unknown parameter 'socket_timeout'"),
        ("redis://redis?ssl_ca_certs=/ca", "needs TLS"),
        ("redis://redis?sentinel_username=x", "needs Sentinels"),
        ("redis://a:secret@redis?password_file=/p", "one of them is too many"),
        ("rediss://redis?ssl_keyfile=/k", "a key without a certificate"),
        ("rediss://redis?ssl_check_hostname=maybe", "yes or no"),
        ("redis+sentinel://one,two", "the name of the service"),
        ("redis+sentinel://one,,two/main", "not host:port"),
        ("unix://", "path of a socket"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("?", r"\?")) as raised:
        locate(url)
    assert "secret" not in str(raised.value)


def test_flags_are_put_into_the_url() -> None:
    url = with_access(
        "rediss://redis:6380/1",
        username="an agent",
        password_file=Path("/run/password"),
        tls_ca=Path("/run/ca.pem"),
        tls_cert=Path("/run/c.pem"),
        tls_key=Path("/run/k.pem"),
    )
    assert locate(url) == Location(
        hosts=(("redis", 6380),),
        db=1,
        login=Login("an agent", None, Path("/run/password")),
        tls=Tls(Path("/run/ca.pem"), Path("/run/c.pem"), Path("/run/k.pem")),
    )


@pytest.mark.parametrize("url", ["redis://redis:1/0", "unix:///run/a.sock?db=0", "redis+sentinel://a,b:2/main/0"])
def test_without_flags_a_url_stays_as_it_is(url: str) -> None:
    assert with_access(url) == url
    assert locate(with_access(url, username="ann")) == Location(
        hosts=locate(url).hosts, path=locate(url).path, service=locate(url).service, login=Login("ann")
    )


def test_flags_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="has a user already"):
        with_access("redis://ann@redis", username="bob")
    with pytest.raises(ValueError, match="need TLS"):
        with_access("redis://redis", tls_ca=Path("/ca.pem"))


def test_a_password_is_hidden_in_every_form() -> None:
    assert without_password("redis+sentinel://ann:secret@a:1,b:2/main") == "redis+sentinel://ann:***@a:1,b:2/main"
