"""`/api/v1/prefixes`: what agents are to compute once and keep, because many requests begin with it."""

from __future__ import annotations

from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp

from api.body import AnyRequest, read_aside, read_json_body
from api.management.asking import ask, json_answer, paths, pool_in
from api.management.desired import author_of
from api.management.prefix_objects import PinRequest, PrefixList, RemovedPrefix, prefix_object, whole_prefix
from api.management.prefix_operations import GET_PREFIX, LIST_PREFIXES, PIN_DECODER, PIN_PREFIX, REMOVE_PREFIX
from api.openai.chat import chat_call_of
from api.openai.schema import NOT_YET, ChatRequest
from api.validation import decode_body
from paddler.clock import Clock
from paddler.errors import InvalidField, PrefixNotFound
from paddler.prefixes.checks import check_content
from paddler.prefixes.store import Prefixes
from paddler.store.client import Store
from paddler.wire.agent import Generate

ALL_SHARE = (
    "`tenant`: this balancer lets tenants share their caches (--share-prefix-cache), so no prefix is one tenant's "
    "alone; leave it out."
)


def prefix_routes(store: Store, clock: Clock, *, shares_prefix_cache: bool) -> list[HTTPRouteHandler]:
    """`shares_prefix_cache`: requests tell agents no tenant, so that nothing could be one's alone."""
    prefixes = Prefixes(store, clock)

    @get(paths("prefixes"), operation=LIST_PREFIXES)
    async def list_prefixes(request: AnyRequest) -> ASGIApp:
        found = await ask(prefixes.shown(await pool_in(request, store)))
        return json_answer(PrefixList([prefix_object(one) for one in found]))

    @post(paths("prefixes"), operation=PIN_PREFIX)
    async def pin_prefix(request: AnyRequest) -> ASGIApp:
        """In place of the one that has this name; the very same changes nothing."""
        pool = await pool_in(request, store)
        asked, content = await read_aside(await read_json_body(request), read_pin)
        if asked.tenant is not None and shares_prefix_cache:
            raise InvalidField(ALL_SHARE, param="tenant")
        made = await ask(
            prefixes.pin(pool, asked.name, content, tenant=asked.tenant, author=author_of(request)),
        )
        [shown] = await ask(prefixes.shown(pool, asked.name))
        return json_answer(prefix_object(shown), 201 if made.is_new else 200)

    @get(paths("prefixes/{prefix:str}"), operation=GET_PREFIX)
    async def get_prefix(request: AnyRequest, prefix: FromPath[str]) -> ASGIApp:
        pool = await pool_in(request, store)
        [shown] = await ask(prefixes.shown(pool, prefix))
        content = await ask(prefixes.content(pool, shown.prefix))
        if content is None:
            raise PrefixNotFound(f"The prefix {prefix[:80]!r} has just been removed or replaced.", param="prefix")
        return json_answer(whole_prefix(shown, content))

    @delete(paths("prefixes/{prefix:str}"), status_code=200, operation=REMOVE_PREFIX)
    async def remove_prefix(request: AnyRequest, prefix: FromPath[str]) -> ASGIApp:
        await ask(prefixes.unpin(await pool_in(request, store), prefix))
        return json_answer(RemovedPrefix(prefix))

    return [list_prefixes, pin_prefix, get_prefix, remove_prefix]


def read_pin(body: bytes) -> tuple[PinRequest, Generate]:
    """What is to be pinned, checked as a request that begins with it would be. Raises `InvalidField`, or
    `ClientException` for bytes that are no JSON."""
    asked = decode_body(body, PIN_DECODER, NOT_YET)
    content = Generate(prompt=asked.prompt)
    if asked.messages is not None:
        request = ChatRequest(model="default", messages=asked.messages, tools=asked.tools)
        payload = chat_call_of(request, random_seed=0).payload
        content = Generate(messages=payload.messages, tools=payload.tools, prompt=asked.prompt)
    elif asked.tools:
        raise InvalidField("`tools` go with `messages`, not with a `prompt`.", param="tools")
    check_content(content)
    return asked, content
