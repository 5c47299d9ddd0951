"""`/api/v1/prefixes`: a pinned prefix's life over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from http_harness import HttpBalancer, NewBalancer

from paddler.prefixes.records import Held, encode_held
from paddler.store.client import Store

pytestmark = pytest.mark.anyio

PREFIXES = "/api/v1/prefixes"
RULES = [{"role": "system", "content": "Be brief."}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


async def test_a_prefixs_life(balancer: HttpBalancer) -> None:
    async with balancer.http("management") as http:
        assert (await http.get(PREFIXES)).json() == {"prefixes": []}
        body = {"name": "rules", "messages": RULES, "tools": [TOOL], "tenant": "acme"}
        made = await http.post(PREFIXES, json=body)
        assert made.status_code == 201
        told = made.json()
        assert (told["name"], told["version"], told["tenant"], told["hits"]) == ("rules", 1, "acme", 0)
        assert (told["tokens"], told["agents"]) == (None, [])
        assert told["author"].startswith("management")
        again = await http.post(PREFIXES, json=body)
        assert (again.status_code, again.json()) == (200, told)
        changed = await http.post(PREFIXES, json={"name": "rules", "prompt": "Once upon a time"})
        assert (changed.status_code, changed.json()["version"], changed.json()["tenant"]) == (200, 2, None)
        [listed] = (await http.get("/api/v1/pools/default/prefixes")).json()["prefixes"]
        assert listed == changed.json()
        whole = (await http.get(f"{PREFIXES}/rules")).json()
        assert (whole["prompt"], whole["messages"], whole["tools"]) == ("Once upon a time", None, [])
        assert (await http.delete(f"{PREFIXES}/rules")).json() == {"name": "rules", "removed": True}
        for method in ("GET", "DELETE"):
            answer = await http.request(method, f"{PREFIXES}/rules")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "prefix_not_found")


async def test_what_is_shown_may_be_sent_again(balancer: HttpBalancer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Look first."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "a tree", "tool_call_id": "c1"},
    ]
    async with balancer.http("management") as http:
        first = await http.post(PREFIXES, json={"name": "rules", "messages": messages, "tools": [TOOL]})
        assert first.status_code == 201, first.text
        whole = (await http.get(f"{PREFIXES}/rules")).json()
        sent = {name: whole[name] for name in ("name", "messages", "tools")}
        again = await http.post(PREFIXES, json=sent)
        assert (again.status_code, again.json()["version"]) == (200, 1)
        await http.delete(f"{PREFIXES}/rules")


async def test_agents_tell_how_they_stand(balancer: HttpBalancer, store: Store) -> None:
    keys, client = store.pool("default").keys, store.redis
    held = [Held("rules", 1, "resident", 120, 5000), Held("other", 1, "waiting")]
    async with balancer.http("management") as http:
        await http.post(PREFIXES, json={"name": "rules", "messages": RULES})
        await client.zadd(keys.agents(), {"a1": 2e12, "a2": 2e12})
        await client.hset(keys.agent("a1"), mapping={"name": "one", "pinned": encode_held(held)})
        await client.hset(keys.agent("a2"), mapping={"pinned": b"of a newer version"})
        told = (await http.get(f"{PREFIXES}/rules")).json()
        await http.delete(f"{PREFIXES}/rules")
        await client.delete(keys.agents(), keys.agent("a1"), keys.agent("a2"))
    assert (told["tokens"], told["bytes"]) == (120, 5000)
    agent = {"agent": "a1", "agent_name": "one", "state": "resident", "tokens": 120, "bytes": 5000, "detail": None}
    assert told["agents"] == [agent]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": RULES}, "name"),
        ({"name": "a b", "messages": RULES}, "name"),
        ({"name": "a"}, "messages"),
        ({"name": "a", "messages": []}, "messages"),
        ({"name": "a", "messages": RULES, "prompt": "x"}, "prompt"),
        ({"name": "a", "messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"name": "a", "messages": RULES, "tenant": "a:b"}, "tenant"),
        ({"name": "a", "prompt": "x", "tools": [TOOL]}, "tools"),
        ({"name": "a", "messages": RULES, "stream": True}, "stream"),
    ],
)
async def test_wrong_fields_are_named(balancer: HttpBalancer, body: dict[str, Any], field: str) -> None:
    async with balancer.http("management") as http:
        answer = await http.post(PREFIXES, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field), answer.text


async def test_where_tenants_share_their_caches_none_is_one_tenants(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(shares_prefix_cache=True)
    async with balancer.http("management") as http:
        answer = await http.post(PREFIXES, json={"name": "a", "messages": RULES, "tenant": "acme"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tenant")
        assert "--share-prefix-cache" in answer.json()["error"]["message"]
        assert (await http.get(PREFIXES)).json() == {"prefixes": []}


async def test_another_pool_has_its_own(balancer: HttpBalancer, store: Store) -> None:
    async with balancer.http("management") as http:
        answer = await http.get("/api/v1/pools/chat/prefixes")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "pool_not_found")
        await store.add_pool("chat")
        assert (await http.post("/api/v1/pools/chat/prefixes", json={"name": "a", "prompt": "x"})).status_code == 201
        assert (await http.get(PREFIXES)).json() == {"prefixes": []}
        assert (await http.delete("/api/v1/pools/chat/prefixes/a")).status_code == 200
    await store.redis.delete(f"{store.pool('chat').keys.base}:prefixes")


async def test_it_needs_a_key_of_an_operator(balancer: HttpBalancer) -> None:
    inference = await balancer.new_key("app", "inference")
    async with balancer.http("management", inference.secret) as http:
        assert (await http.get(PREFIXES)).status_code == 403
