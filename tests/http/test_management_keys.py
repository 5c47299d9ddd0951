"""`/api/v1/keys`: a key's life over HTTP."""

from __future__ import annotations

import httpx
import pytest
from http_harness import HttpBalancer

from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

KEYS = "/api/v1/keys"


async def test_a_keys_life(balancer: HttpBalancer) -> None:
    operator = await balancer.new_key("operator", "management")
    async with balancer.http("management", operator.secret) as http:
        body = {"name": "laptop", "tenant": "alice", "limits": {"requests_per_minute": 60, "weight": 2}}
        made = await http.post(KEYS, json=body)
        assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
        key, secret = made.json()["key"], made.json()["secret"]
        assert (key["name"], key["tenant"], key["scopes"], key["state"]) == ("laptop", "alice", ["inference"], "active")
        assert key["limits"]["requests_per_minute"] == 60
        assert key["limits"]["tokens_per_minute"] is None
        assert secret.startswith(f"pd-{key['id']}-")

        async def status(secret: str) -> int:
            async with balancer.http(key=secret) as other:
                return (await other.get("/v1/models")).status_code

        async def is_known() -> bool:
            return await status(secret) == 200

        await wait_until(is_known, what="the new key is let in")
        listed = (await http.get(KEYS)).json()["keys"]
        assert [one["name"] for one in listed] == ["operator", "laptop"]
        assert "hash" not in str(listed)
        path = f"{KEYS}/{key['id']}"
        limited = await http.put(f"{path}/limits", json={"max_in_flight": 3})
        assert (limited.json()["limits"]["max_in_flight"], limited.json()["limits"]["requests_per_minute"]) == (3, None)
        rotated = await http.post(f"{path}/rotate", json={})
        assert rotated.json()["secret"] != secret
        assert rotated.json()["key"]["rotated_at"]

        async def is_refused() -> bool:
            return await status(secret) == 401

        await wait_until(is_refused, what="the old secret is refused")
        assert (await http.delete(path)).status_code == 409, "it must be revoked first"
        revoked = [(await http.post(f"{path}/revoke")).json() for _ in range(2)]
        assert revoked[0] == revoked[1]
        assert revoked[0]["state"] == "revoked"
        assert (await http.post(f"{path}/rotate", json={})).status_code == 409
        assert (await http.delete(path)).json() == {"id": key["id"], "forgotten": True}
        assert (await http.get(path)).status_code == 404


WRONG = [
    ({}, "name"),
    ({"name": "a b"}, "name"),
    ({"name": "a", "tenant": "a:b"}, "tenant"),
    ({"name": "a\n"}, "name"),
    ({"name": "a", "scopes": ["all"]}, "scopes[0]"),
    ({"name": "a", "scopes": []}, "scopes"),
    ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"name": "a", "expires_at": "2040-01-01T00:00:00"}, "expires_at"),
    ({"name": "a", "limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
    ({"name": "a", "limits": {"weight": 0}}, "limits.weight"),
    ({"name": "a", "limits": {"rpm": 1}}, "limits.rpm"),
    ({"name": "a", "secret": "mine"}, "secret"),
]


@pytest.mark.parametrize(("body", "param"), WRONG)
async def test_what_is_wrong_is_named(balancer: HttpBalancer, body: dict[str, object], param: str) -> None:
    async with balancer.http("management") as http:
        answer: httpx.Response = await http.post(KEYS, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


async def test_a_key_that_nobody_knows(balancer: HttpBalancer) -> None:
    async with balancer.http("management") as http:
        for ask in (
            http.get(f"{KEYS}/nobody"),
            http.post(f"{KEYS}/nobody/revoke"),
            http.post(f"{KEYS}/nobody/rotate", json={}),
            http.put(f"{KEYS}/nobody/limits", json={}),
            http.delete(f"{KEYS}/nobody"),
        ):
            answer = await ask
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "key_not_found")
