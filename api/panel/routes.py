"""The routes that only the panel has: who looks, and what it shows live."""

from __future__ import annotations

import asyncio

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from api.access.caller import Caller, caller_of
from api.body import AnyRequest, read_json_body
from api.management.asking import ask, json_answer
from api.openai.query import read_query
from api.panel.feed import Feed
from api.panel.guard import session_of
from api.panel.headers import session_cookie, session_id
from api.panel.live import LiveStream
from api.panel.objects import HistoryAnswer, Me
from api.panel.operations import HISTORY, LIVE, LOGIN, LOGIN_DECODER, LOGOUT, ME
from api.panel.sessions import Sessions
from api.validation import decode_body
from paddler import __version__
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.metrics.history import History
from paddler.store.client import TROUBLE
from paddler.store.panel_keys import SAMPLE_S
from paddler.tenants.records import ApiKey
from paddler.tenants.ring import KeyRing


def login_routes(ring: KeyRing | None, sessions: Sessions | None, *, is_tls: bool) -> list[HTTPRouteHandler]:
    def me(key: ApiKey | None) -> Me:
        return Me(
            needs_key=ring is not None and not ring.is_open,
            logged_in=key is not None,
            name=key.name if key else None,
            tenant=key.tenant if key else None,
            version=__version__,
        )

    def with_cookie(request: AnyRequest, told: Me, value: str) -> ASGIResponse:
        answer = json_answer(told)
        headers = dict(request.scope["headers"])
        answer.headers.add("set-cookie", session_cookie(headers, value, is_tls=is_tls))
        return answer

    @get("/panel/api/me", operation=ME)
    async def get_me(request: AnyRequest) -> ASGIResponse:
        caller: Caller = caller_of(request.scope)
        if ring is not None:
            await ring.wait_loaded()
        return json_answer(me(None if caller.account is None else caller.account.key))

    @post("/panel/api/login", status_code=200, operation=LOGIN)
    async def log_in(request: AnyRequest) -> ASGIResponse:
        asked = decode_body(await read_json_body(request), LOGIN_DECODER, {})
        if sessions is None:
            raise InvalidField("There are no API keys, so there is nothing to log in with.", param="key")
        opened, key = await ask(sessions.log_in(asked.key))
        return with_cookie(request, me(key), opened)

    @post("/panel/api/logout", status_code=200, operation=LOGOUT)
    async def log_out(request: AnyRequest) -> ASGIResponse:
        opened = session_id(dict(request.scope["headers"]))
        if opened is not None and sessions is not None:
            await ask(sessions.log_out(opened))
        return with_cookie(request, me(None), "")

    return [get_me, log_in, log_out]


def live_routes(
    feed: Feed, history: History, sessions: Sessions | None, stopping: asyncio.Event, clock: Clock
) -> list[HTTPRouteHandler]:
    @get("/panel/api/history", operation=HISTORY)
    async def get_history() -> ASGIApp:
        _, samples = await ask(history.since(b""))
        return json_answer(HistoryAnswer(step_ms=SAMPLE_S * 1000, samples=samples))

    @get("/panel/api/live", operation=LIVE)
    async def follow(request: AnyRequest) -> ASGIApp:
        asked = read_query(request, ("topics",)).get("topics")
        topics = feed.topics if asked is None else list(dict.fromkeys(asked.split(",")))
        if unknown := [name for name in topics if name not in feed.topics]:
            raise InvalidField(
                f"`topics` has {unknown[0][:50]!r}; there are: {', '.join(feed.topics)}.", param="topics"
            )
        opened, caller = session_of(request.scope), caller_of(request.scope)

        def is_let_in() -> bool:
            """A script's key may have a new secret and be good; a session ends with the one that it began with."""
            if opened is None or sessions is None or caller.account is None:
                return caller.is_let_in
            return sessions.is_good(caller.account.key)

        async def is_session_open() -> bool:
            if opened is None or sessions is None:
                return True
            try:
                return await sessions.is_open(opened)
            except TROUBLE:
                return True

        return LiveStream(feed, topics, stopping, clock, is_let_in, is_session_open)

    return [get_history, follow]
