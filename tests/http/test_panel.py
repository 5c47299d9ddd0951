"""The panel's address: its files, what its answers tell browsers, who is let in, and the data of its pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer, chat

from api.panel.headers import session_cookie
from api.panel.joining import joining_of
from api.panel.settings import limits_of
from api.serve import command
from paddler.batches.quota import Bound, Quota
from paddler.clock import SystemClock
from paddler.jobs.gateway import GatewaySettings
from paddler.store.panel_keys import history_key
from paddler.tenants.keys import ApiKeys
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

WRITE = {"x-paddler-panel": "1"}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """What `make panel` would have built, much smaller."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>Paddler</title>")
    (tmp_path / "assets/index-abc123.js").write_text("console.log(1)")
    (tmp_path / "assets/index-abc123.js.br").write_bytes(b"brotli of it")
    return tmp_path


@pytest.fixture
async def balancer(new_balancer: NewBalancer, built: Path) -> HttpBalancer:
    return await new_balancer(panel=built)


@pytest.fixture
async def browser(balancer: HttpBalancer) -> AsyncIterator[httpx.AsyncClient]:
    """Keeps cookies, as a browser does."""
    async with balancer.http("panel") as client:
        yield client


async def log_in(browser: httpx.AsyncClient, key: str) -> httpx.Response:
    return await browser.post("/panel/api/login", json={"key": key}, headers=WRITE)


@pytest.mark.parametrize(
    "path", ["/", "/assets/index-abc123.js", "/panel/api/me", "/api/v1/pools", "/nothing", "/health"]
)
async def test_every_answer_is_strict_with_browsers(browser: httpx.AsyncClient, path: str) -> None:
    headers = (await browser.get(path)).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


async def test_assets_stay_in_the_browser_and_the_page_is_asked_for(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/")
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    again = await browser.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    asset = await browser.get("/assets/index-abc123.js", headers={"accept-encoding": "gzip"})
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert asset.text == "console.log(1)"
    async with browser.stream("GET", "/assets/index-abc123.js", headers={"accept-encoding": "gzip, br"}) as packed:
        assert packed.headers["content-encoding"] == "br"
        assert b"".join([part async for part in packed.aiter_raw()]) == b"brotli of it"
    for path in ("/assets/../../app.py", "/assets/%2e%2e/index.html", "/pages.py", "/assets/index-abc123.js.br"):
        assert (await browser.get(path)).status_code == 404


async def test_without_a_build_it_says_how_to_get_one(new_balancer: NewBalancer, tmp_path: Path) -> None:
    balancer = await new_balancer(panel=tmp_path / "dist")
    async with balancer.http("panel") as client:
        answer = await client.get("/")
        assert answer.status_code == 503
        assert "make panel" in answer.text
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist/index.html").write_text("built meanwhile")
        assert (await client.get("/")).text == "built meanwhile"


async def test_pages_use_the_handlers_of_the_other_services(
    browser: httpx.AsyncClient, balancer: HttpBalancer, new_agent: NewAgent
) -> None:
    agent = await new_agent()
    assert (await browser.get("/api/v1/agents")).json()["agents"][0]["name"] == "hand"
    assert (await browser.get("/v1/models")).json()["object"] == "list"
    assert "/panel/api/live" in (await browser.get("/openapi.json")).json()["paths"]
    asking = asyncio.create_task(browser.post("/v1/chat/completions", json=chat("hi"), headers=WRITE))
    request = await agent.take()
    await request.say("hello")
    await request.finish()
    assert (await asking).json()["choices"][0]["message"]["content"] == "hello"
    async with balancer.http("management") as management:
        known = (await management.get("/api/v1/pools/default/agents")).json()
        assert (await browser.get("/api/v1/pools/default/agents")).json() == known


async def test_without_keys_everybody_is_let_in(browser: httpx.AsyncClient) -> None:
    me = (await browser.get("/panel/api/me")).json()
    assert (me["needs_key"], me["logged_in"]) == (False, False)
    refused = await log_in(browser, "pd-000000000000-x")
    assert refused.status_code == 401


async def test_a_session_is_begun_with_a_key_and_ends_with_it(
    browser: httpx.AsyncClient, balancer: HttpBalancer
) -> None:
    new = await balancer.new_key("operator", "management")
    assert (await browser.get("/api/v1/pools")).status_code == 401
    assert (await browser.get("/")).status_code == 200
    wrong = await log_in(browser, new.secret[:-1] + ("a" if new.secret[-1] != "a" else "b"))
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers

    answer = await log_in(browser, new.secret)
    assert answer.json() == {**answer.json(), "logged_in": True, "name": "operator", "needs_key": True}
    cookie = answer.headers["set-cookie"]
    assert cookie.split("=")[0] == f"paddler_panel_{browser.base_url.port}"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert new.secret not in cookie
    assert (await browser.get("/api/v1/pools")).status_code == 200
    assert (await browser.get("/v1/models")).status_code == 200

    await ApiKeys(balancer.store, SystemClock()).revoke(new.key.id)
    await balancer.tenants.ring.refresh_once()
    assert (await browser.get("/api/v1/pools")).status_code == 401
    assert (await browser.get("/panel/api/me")).json()["logged_in"] is False


async def test_a_rotated_key_ends_its_sessions(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    new = await balancer.new_key("operator", "management")
    await log_in(browser, new.secret)
    rotated = await ApiKeys(balancer.store, SystemClock()).rotate(new.key.id, overlap_ms=60_000)
    await balancer.tenants.ring.refresh_once()
    assert (await browser.get("/api/v1/pools")).status_code == 401
    old = {"authorization": f"Bearer {new.secret}"}
    assert (await browser.get("/api/v1/pools", headers=old)).status_code == 200
    assert (await log_in(browser, new.secret)).status_code == 401, "a session would outlast the old secret"
    assert (await log_in(browser, rotated.secret)).status_code == 200


async def test_logging_out_ends_the_session_on_every_balancer(
    browser: httpx.AsyncClient, balancer: HttpBalancer, new_balancer: NewBalancer, built: Path
) -> None:
    new = await balancer.new_key("operator", "management")
    other = await new_balancer(panel=built)
    await other.tenants.ring.refresh_once()
    await log_in(browser, new.secret)
    # Behind one address, whose name the browser sends to either.
    headers = {"cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    headers["host"] = f"127.0.0.1:{browser.base_url.port}"
    async with other.http("panel") as second:
        assert (await second.get("/api/v1/pools", headers=headers)).status_code == 200
        out = await browser.post("/panel/api/logout", headers=WRITE)
        assert out.json()["logged_in"] is False
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert (await second.get("/api/v1/pools", headers=headers)).status_code == 401


async def test_what_is_kept_of_a_session_lets_nobody_in(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    new = await balancer.new_key("operator", "management")
    await log_in(browser, new.secret)
    (session_id,) = browser.cookies.values()
    redis: Any = balancer.store.redis
    (key,) = [one async for one in redis.scan_iter(f"{balancer.store.prefix}:panel:session:*")]
    assert session_id.encode() not in key
    assert 0 < await redis.ttl(key) <= 43_200
    kept = await redis.get(key)
    assert session_id.encode() not in kept
    assert new.secret.encode() not in kept


async def test_the_scope_management_is_wanted(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    new = await balancer.new_key("client", "inference")
    refused = await log_in(browser, new.secret)
    assert refused.status_code == 403
    assert "management" in refused.json()["error"]["message"]
    with_key = {"authorization": f"Bearer {new.secret}"}
    assert (await browser.get("/api/v1/pools", headers=with_key)).status_code == 403
    assert (await browser.get("/panel/api/me", headers=with_key)).json()["logged_in"] is False


async def test_where_redis_is_takes_the_scope_agent_here_too(
    browser: httpx.AsyncClient, balancer: HttpBalancer
) -> None:
    """Its URL may have a password, which the page that adds an agent leaves out."""
    operator = await balancer.new_key("operator", "management", "inference")
    await log_in(browser, operator.secret)
    refused = await browser.get("/api/v1/agent_access")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
    both = await balancer.new_key("both", "management", "agent")
    await log_in(browser, both.secret)
    assert (await browser.get("/api/v1/agent_access")).json()["redis_url"] == balancer.store.url


async def test_a_key_will_do_in_place_of_a_session(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    new = await balancer.new_key("script", "management")
    headers = {"authorization": f"Bearer {new.secret}"}
    assert (await browser.get("/api/v1/pools", headers=headers)).status_code == 200
    assert (await browser.delete("/api/v1/agent/none", headers=headers)).status_code == 404


@pytest.mark.parametrize("has_keys", [False, True])
async def test_other_origins_can_change_nothing(
    browser: httpx.AsyncClient, balancer: HttpBalancer, has_keys: bool
) -> None:
    if has_keys:
        new = await balancer.new_key("operator", "management")
        await log_in(browser, new.secret)
    unasked = await browser.delete("/api/v1/agent/none")
    assert unasked.status_code == 403
    foreign = await browser.delete("/api/v1/agent/none", headers={**WRITE, "origin": "http://evil.example"})
    assert foreign.status_code == 403
    own = {**WRITE, "origin": str(browser.base_url).rstrip("/")}
    assert (await browser.delete("/api/v1/agent/none", headers=own)).status_code == 404
    preflight = {"origin": "http://evil.example", "access-control-request-method": "DELETE"}
    answer = await browser.request("OPTIONS", "/api/v1/agent/none", headers=preflight)
    assert "access-control-allow-origin" not in answer.headers


async def test_a_name_that_was_pointed_here_is_refused(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    rebound = {"host": "evil.example:8062"}
    for path in ("/", "/api/v1/pools", "/panel/api/live"):
        refused = await browser.get(path, headers=rebound)
        assert refused.status_code == 421
        assert "evil.example" in refused.text
        assert refused.headers["x-frame-options"] == "DENY"
    for path in ("/health", "/ready", "/openapi.json"):
        assert (await browser.get(path, headers=rebound)).status_code == 200, "probes have names of their own"
    await balancer.new_key("operator", "management")
    # Its pages have no session: the cookie is of another host.
    assert (await browser.get("/", headers=rebound)).status_code == 200
    assert (await browser.get("/api/v1/pools", headers=rebound)).status_code == 401


def test_a_cookie_under_tls_is_sent_by_tls_alone() -> None:
    headers = {b"host": b"panel.example"}
    assert "Secure" in session_cookie(headers, "x", is_tls=True).split("; ")
    assert session_cookie(headers, "x", is_tls=True).startswith("paddler_panel=x;")


async def test_behind_a_proxy_that_ends_tls_the_page_says_so(
    browser: httpx.AsyncClient, balancer: HttpBalancer
) -> None:
    new = await balancer.new_key("operator", "management")

    async def cookie(origin: str, path: str = "/panel/api/login", **more: str) -> str:
        headers = {**WRITE, "host": "panel.example", "origin": origin, **more}
        answer = await browser.post(path, json={"key": new.secret}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["set-cookie"]

    assert "; Secure" in await cookie("https://panel.example")
    assert "; Secure" in await cookie("https://panel.example", "/panel/api/logout")
    assert "; Secure" not in await cookie("http://panel.example", **{"x-forwarded-proto": "https"})
    foreign = {**WRITE, "host": "panel.example", "origin": "https://evil.example"}
    assert (await browser.post("/panel/api/login", json={"key": new.secret}, headers=foreign)).status_code == 403


class Live:
    """The feed as a page has it."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.held: dict[str, dict[str, Any]] = {}
        self.samples: list[dict[str, Any]] = []

    async def until(self, predicate: Callable[[Live], object]) -> None:
        event = ""
        while not predicate(self):
            line = await asyncio.wait_for(anext(self._lines), 20)
            if line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: "):
                self._take(event, json.loads(line[6:]))

    def _take(self, event: str, data: Any) -> None:
        if event == "samples":
            self.samples += data
            return
        for topic, change in data.items():
            held = {} if change.get("reset") else self.held.get(topic, {})
            gone = change.get("gone", [])
            self.held[topic] = {key: value for key, value in held.items() if key not in gone} | change.get("set", {})


async def test_the_feed_follows_the_fleet(browser: httpx.AsyncClient, new_agent: NewAgent) -> None:
    async with browser.stream("GET", "/panel/api/live") as response:
        assert response.headers["content-type"] == "text/event-stream"
        live = Live(response)
        await live.until(lambda live: "pools" in live.held and "agents" in live.held)
        assert live.held["agents"] == {}
        assert live.held["system"] == {"system": {"redis": True, "worker": False}}
        agent: HandAgent = await new_agent(slots=3)
        key = f"default/{agent.agent_id}"
        await live.until(lambda live: key in live.held["agents"])
        assert live.held["agents"][key]["slots_total"] == 3
        assert live.held["agents"][key]["pool"] == "default"
        await live.until(lambda live: live.held["pools"]["default"]["agents"] == 1)
        await agent.leave()
        await live.until(lambda live: key not in live.held["agents"])


async def test_only_topics_that_are_wanted_are_told(browser: httpx.AsyncClient) -> None:
    async with browser.stream("GET", "/panel/api/live?topics=pools") as response:
        live = Live(response)
        await live.until(lambda live: live.held)
        assert set(live.held) == {"pools"}
    refused = await browser.get("/panel/api/live?topics=pools,nothing")
    assert refused.status_code == 400
    assert "agents" in refused.json()["error"]["message"]


async def test_the_history_is_the_same_on_every_balancer_and_goes_on_live(
    browser: httpx.AsyncClient, balancer: HttpBalancer, new_balancer: NewBalancer, built: Path
) -> None:
    redis: Any = balancer.store.redis
    await wait_until(lambda: redis.exists(history_key(balancer.store.prefix)), what="the first sample is taken")
    other = await new_balancer(panel=built)
    first = (await browser.get("/panel/api/history")).json()
    async with other.http("panel") as second:
        same = (await second.get("/panel/api/history")).json()
        assert same["samples"][: len(first["samples"])] == first["samples"]
        async with second.stream("GET", "/panel/api/live?topics=system") as response:
            live = Live(response)
            await live.until(lambda live: live.samples)
    sample = live.samples[0]
    assert sample["pool"] == "default"
    assert sample["at_ms"] > first["samples"][0]["at_ms"]
    assert {"buffered", "demand", "oldest_wait_ms", "slots_processing", "slots_total", "tokens_per_second"} < set(
        sample
    )
    assert 0 < await redis.ttl(history_key(balancer.store.prefix)) <= 900


async def test_a_revoked_key_ends_its_live_feed(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    new = await balancer.new_key("operator", "management")
    await log_in(browser, new.secret)
    async with browser.stream("GET", "/panel/api/live") as response:
        live = Live(response)
        await live.until(lambda live: live.held)
        await ApiKeys(balancer.store, SystemClock()).revoke(new.key.id)
        with pytest.raises(StopAsyncIteration):
            await live.until(lambda live: False)


async def test_a_rotated_key_ends_its_live_feed(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    """Whatever the old secret is still good for: a session does not have it."""
    new = await balancer.new_key("operator", "management")
    await log_in(browser, new.secret)
    async with browser.stream("GET", "/panel/api/live") as response:
        live = Live(response)
        await live.until(lambda live: live.held)
        await ApiKeys(balancer.store, SystemClock()).rotate(new.key.id, overlap_ms=60_000)
        with pytest.raises(StopAsyncIteration):
            await live.until(lambda live: False)


async def test_a_page_in_sight_prolongs_its_session(
    browser: httpx.AsyncClient, balancer: HttpBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.panel.live.CHECK_S", 0.0)
    new = await balancer.new_key("operator", "management")
    await log_in(browser, new.secret)
    redis: Any = balancer.store.redis
    (key,) = [one async for one in redis.scan_iter(f"{balancer.store.prefix}:panel:session:*")]
    async with browser.stream("GET", "/panel/api/live") as response:
        live = Live(response)
        await live.until(lambda live: live.held)
        await redis.expire(key, 60)

        async def is_prolonged() -> bool:
            return await redis.ttl(key) > 3600

        await wait_until(is_prolonged, what="the session is prolonged")


def test_limits_are_flags_of_the_balancer() -> None:
    quota = Quota(open_batches=Bound(7, "the balancer"))
    limits = limits_of(GatewaySettings(), max_body=1, max_file=2, max_stored=3, quota=quota)
    told = {one.flag: one.value for one in limits}
    assert set(told) < {flag for option in command.params for flag in option.opts}
    assert (told["--tenant-open-batches"], told["--tenant-batch-lines"]) == (7, "none")


async def test_settings_tell_where_things_are(browser: httpx.AsyncClient, balancer: HttpBalancer) -> None:
    told = (await browser.get("/panel/api/settings")).json()
    assert told["redis"]["is_reachable"]
    assert told["redis"]["prefix"] == balancer.store.prefix
    assert {one["check"] for one in told["redis"]["findings"]} >= {"redis latency", "redis version"}
    joining = (await browser.get("/panel/api/joining")).json()
    assert joining == {
        "redis_url": balancer.store.url,
        "redis_prefix": balancer.store.prefix,
        "is_local": True,
        "has_secret": False,
    }


@pytest.mark.parametrize(
    ("url", "shown", "is_local", "has_secret"),
    [
        ("redis://queue:6379/0", "redis://queue:6379/0", False, False),
        ("redis://agent:hunter2@queue:6379/0", "redis://agent@queue:6379/0", False, True),
        ("redis://:hunter2@127.0.0.2:6379/0", "redis://127.0.0.2:6379/0", True, True),
        ("rediss://b@queue:6379/0?password_file=/run/b&ssl_ca_certs=/run/ca", "rediss://b@queue:6379/0", False, True),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2", True, False),
    ],
)
def test_an_agent_is_told_no_password_and_no_file_of_this_machine(
    url: str, shown: str, is_local: bool, has_secret: bool
) -> None:
    told = joining_of(url, "paddler")
    assert (told.redis_url, told.is_local, told.has_secret) == (shown, is_local, has_secret)
