"""What is said of a Redis that cannot be used, with the errors as redis-py raises them."""

from __future__ import annotations

import ssl

import pytest
from redis.exceptions import ConnectionError, OutOfMemoryError, ReadOnlyError, ResponseError

from paddler.store import remedies
from paddler.store.client import TROUBLE, connect
from paddler.store.remedies import remedy_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://127.0.0.1:1", remedies.START),
        ("unix:///nowhere.sock", remedies.START),
        ("redis://nowhere.invalid:6379", remedies.NAME),
    ],
)
async def test_a_server_that_is_not_there(url: str, remedy: str) -> None:
    store = connect(url)
    with pytest.raises(TROUBLE) as raised:
        await store.redis.ping()
    await store.close()
    assert remedy_for(raised.value) == remedy


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ResponseError("WRONGPASS invalid username-password pair"), remedies.CREDENTIALS),
        (ResponseError("NOAUTH Authentication required."), remedies.CREDENTIALS),
        (ResponseError("NOPERM this user has no permissions to run the 'fcall' command"), remedies.RIGHTS),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), remedies.DISK),
        (ResponseError("unknown command 'FCALL'"), remedies.OLD),
        (ResponseError("DB index is out of range"), remedies.DATABASE),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), remedies.FULL),
        (ReadOnlyError("You can't write against a read only replica."), remedies.REPLICA),
        (ssl.SSLError("WRONG_VERSION_NUMBER"), remedies.TLS),
        (ConnectionError("Timeout connecting to server"), remedies.TIME),
        (OSError("something else"), remedies.LOG),
    ],
)
def test_a_server_that_refuses(error: Exception, remedy: str) -> None:
    assert remedy_for(error) == remedy


def test_the_cause_is_looked_at_too() -> None:
    error = ConnectionError("it is closed")
    error.__cause__ = ConnectionRefusedError(111, "x")
    assert remedy_for(error) == remedies.START
