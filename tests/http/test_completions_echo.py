"""`echo` of tokens, which an agent has to be asked for before there is an answer."""

from __future__ import annotations

import pytest
from http_harness import HttpBalancer, NewBalancer

pytestmark = pytest.mark.anyio

ASKED = {"model": "default", "prompt": [1, 2], "echo": True}


async def test_a_background_request_cannot_wait_for_it(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        refused = await http.post("/v1/completions", json=ASKED | {"background": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "echo")
        text = ASKED | {"prompt": "Once", "background": True}
        sent = await http.post("/v1/completions", json=text)
        assert sent.status_code == 202
        await http.post(f"{sent.headers['location']}/cancel")


async def test_in_class_batch_it_is_not_waited_for_without_a_bound(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(buffered_request_timeout_ms=200)
    async with balancer.http() as http:
        answer = await http.post("/v1/completions", json=ASKED, headers={"X-Request-Class": "batch"}, timeout=5)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "start_timeout")
