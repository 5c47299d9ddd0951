"""The routes of desired states: Paddler 4's for the pool `default`, and the same below `/api/v1/pools/{name}`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator
from functools import partial
from typing import Any

import msgspec
from litestar import Response, get, patch, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.access.caller import caller_of
from api.body import AnyRequest, read_json_body
from api.management.desired_objects import StateHistory, StateVersion, WholeVersion
from api.management.desired_operations import (
    APPLICABLE,
    GET_STATE,
    HISTORY,
    IF_MATCH_PATTERN,
    PATCH_STATE,
    PUT_STATE,
    ROLLBACK,
    VERSION,
)
from paddler.desired import changing
from paddler.desired.document import document_of, patched, read_patch, read_state
from paddler.desired.schema import Versioned
from paddler.desired.store import DesiredStates
from paddler.errors import InvalidField, QueueUnavailable, VersionConflict
from paddler.ids import is_pool_name
from paddler.settings import DEFAULT_POOL
from paddler.store.client import TROUBLE, Store

_TAG = re.compile(r'(?P<weak>W/)?"(?P<version>[0-9]+)"')


def desired_routes(store: Store) -> list[HTTPRouteHandler]:
    states = DesiredStates(store)

    @get(_paths("balancer_desired_state"), operation=GET_STATE)
    async def get_desired_state(request: AnyRequest) -> Response[Any]:
        with _redis():
            found = await states.read(_pool(request))
        return _answer(document_of(found.state), found.version)

    @put(_paths("balancer_desired_state"), status_code=204, operation=PUT_STATE)
    async def put_desired_state(request: AnyRequest) -> Response[None]:
        """Without `If-Match` the last writer wins, as at Paddler 4."""
        pool, state = _pool(request), read_state(await read_json_body(request))
        with _redis():
            expected = await _expected(states, pool, request)
            found = await changing.put(states, pool, state, expected=expected, author=author_of(request))
        return Response(None, status_code=204, headers={"etag": _etag(found.version)})

    @patch(_paths("balancer_desired_state"), operation=PATCH_STATE)
    async def patch_desired_state(request: AnyRequest) -> Response[Any]:
        """A JSON merge patch (RFC 7396): fields that it names are replaced, null is the default again."""
        pool, body = _pool(request), await read_json_body(request)
        read_patch(body)  # what is no patch is told before what `If-Match` says
        with _redis():
            expected = await _expected(states, pool, request)
            changed = partial(patched, body=body)
            found = await changing.change(states, pool, changed, expected=expected, author=author_of(request))
        return _answer(document_of(found.state), found.version)

    @get(_paths("balancer_applicable_state"), operation=APPLICABLE)
    async def get_applicable_state(request: AnyRequest) -> Response[Any]:
        with _redis():
            found = await states.read(_pool(request))
        return _answer(document_of(found.state.for_agents()) if found.version else None, found.version)

    @get(_paths("history"), operation=HISTORY)
    async def get_state_history(request: AnyRequest) -> Response[Any]:
        pool = _pool(request)
        with _redis():
            current, found = await states.version(pool), await states.history(pool)
        told: StateHistory = {"current": current, "history": [_short(one) for one in found]}
        return _answer(told, current)

    @get(_paths("history/{version:int}"), operation=VERSION)
    async def get_state_version(request: AnyRequest, version: FromPath[int]) -> Response[Any]:
        with _redis():
            found = await states.at(_pool(request), version)
        return _answer(_whole(found), found.version)

    @post(_paths("history/{version:int}/rollback"), status_code=200, operation=ROLLBACK)
    async def roll_back_state(request: AnyRequest, version: FromPath[int]) -> Response[Any]:
        """As a new version: the history goes on."""
        pool = _pool(request)
        with _redis():
            await states.at(pool, version)  # one that never was is 404, whatever `If-Match` says
            expected = await _expected(states, pool, request)
            found = await changing.roll_back(states, pool, version, expected=expected, author=author_of(request))
        return _answer(_whole(found), found.version)

    return [
        *(get_desired_state, put_desired_state, patch_desired_state, get_applicable_state),
        *(get_state_history, get_state_version, roll_back_state),
    ]


def author_of(request: AnyRequest) -> str:
    """Who changes something, for the history: by which key, from which address."""
    told = ["management"]
    if (account := caller_of(request.scope).account) is not None:
        told.append(f"key {account.key.name} ({account.key.id})")
    if request.client is not None and request.client.host:
        told.append(request.client.host)
    return ", ".join(told)


def _paths(rest: str) -> list[str]:
    return [f"/api/v1/{rest}", f"/api/v1/pools/{{name:str}}/{rest}"]


def _pool(request: AnyRequest) -> str:
    """Raises `InvalidField`. A pool need not have agents: its requests wait for them."""
    name: str = request.path_params.get("name", DEFAULT_POOL)
    if not is_pool_name(name):
        raise InvalidField(
            f"{name[:80]!r} cannot name a pool: lower-case letters, digits and dashes, at most 63, no dash first.",
            param="name",
        )
    return name


async def _expected(states: DesiredStates, pool: str, request: AnyRequest) -> int | None:
    """The version that `If-Match` names, None for any. Raises `InvalidField`, and `VersionConflict` if none of several
    is there."""
    text = request.headers.get("if-match", "").strip()
    if "if-match" not in request.headers or text == "*":
        return None
    if not re.fullmatch(IF_MATCH_PATTERN, text):
        raise InvalidField(
            '`If-Match` is the ETag of a GET, a version in quotes as "3", or *; leave it out to write over whatever is '
            "there.",
            param="If-Match",
        )
    # By RFC 9110 a weak tag matches nothing here.
    versions = [int(tag["version"]) for tag in _TAG.finditer(text) if not tag["weak"]]
    if len(versions) == 1:
        return versions[0]
    current = await states.version(pool)
    if current not in versions:
        raise VersionConflict(f"the desired state has version {current}, none of {text}.", param="If-Match")
    return current


def _short(found: Versioned) -> StateVersion:
    return {"version": found.version, "updated_ms": found.updated_ms, "author": found.author}


def _whole(found: Versioned) -> WholeVersion:
    # The document as a dict: what is ours and as by default stays out.
    state: Any = document_of(found.state)
    return {**_short(found), "balancer_desired_state": state}


def _answer(content: Any, version: int) -> Response[Any]:
    body = msgspec.json.encode(content)
    return Response(body, media_type="application/json", headers={"etag": _etag(version)})


def _etag(version: int) -> str:
    return f'"{version}"'


@contextlib.contextmanager
def _redis() -> Generator[None]:
    try:
        yield
    except TROUBLE as error:
        raise QueueUnavailable("Redis cannot be reached or refuses writes.", retry_after_s=1) from error
