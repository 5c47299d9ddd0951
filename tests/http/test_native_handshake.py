"""What a client of the inference socket asks for in headers is refused before there is a socket."""

from __future__ import annotations

import httpx
import pytest
from http_harness import HttpBalancer
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api.native.handshake import OF_ONE_REQUEST

pytestmark = pytest.mark.anyio


def url(balancer: HttpBalancer) -> str:
    return str(httpx.URL(balancer.url()).copy_with(scheme="ws", path="/api/v1/inference_socket"))


@pytest.mark.parametrize("name", OF_ONE_REQUEST)
async def test_a_header_of_one_request_is_named(balancer: HttpBalancer, name: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(balancer), additional_headers={name: "1"}, proxy=None):
            pass
    assert refused.value.response.status_code == 400
    body = refused.value.response.body
    assert body is not None
    assert f"`{name}`".encode() in body


async def test_other_headers_are_not(balancer: HttpBalancer) -> None:
    async with connect(url(balancer), additional_headers={"X-Request-Id": "a"}, proxy=None) as sock:
        await sock.send("{")
        assert b"400" in str(await sock.recv()).encode()
