"""Dead letters: requests that lost one agent after the other, and may be what killed them."""

from __future__ import annotations

from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp

from api.body import AnyRequest
from api.management.asking import ask, checked_id, json_answer, paths, pool_in
from api.management.fleet_objects import DeadLetterAnswer, DeadLetterObject, DeadLetterPage
from api.management.fleet_operations import DEAD_LETTERS, DROP, LIMIT, MAX_LIMIT, REQUEUE
from api.openai.query import read_limit, read_query
from paddler.errors import Conflict, InvalidField, RequestNotFound
from paddler.ids import pool_of
from paddler.jobs.overview import Overview
from paddler.store.client import Store
from paddler.store.results import Requeued


def dead_letter_routes(store: Store) -> list[HTTPRouteHandler]:
    overview = Overview(store)

    @get(paths("dead_letters"), operation=DEAD_LETTERS)
    async def list_dead_letters(request: AnyRequest) -> ASGIApp:
        """A pool keeps a thousand at most."""
        query = read_query(request, ("limit", "cursor"))
        limit, cursor = read_limit(query, LIMIT, MAX_LIMIT), query.get("cursor")
        letters = await ask(overview.dead_letters(await pool_in(request, store)))
        start = 0
        if cursor is not None:
            ids = [letter.id for letter in letters]
            if cursor not in ids:
                raise InvalidField(
                    "`cursor` must be `next_cursor` of another page, whose last letter is still there.", param="cursor"
                )
            start = ids.index(cursor) + 1
        page = letters[start : start + limit]
        told = [
            DeadLetterObject(
                id=one.id, died_at_ms=one.died_ms, deaths=one.deaths, tenant=one.tenant, can_requeue=one.can_requeue
            )
            for one in page
        ]
        return json_answer(DeadLetterPage(told, page[-1].id if start + limit < len(letters) else None))

    @post("/api/v1/dead_letters/{request_id:str}/requeue", status_code=200, operation=REQUEUE)
    async def requeue_dead_letter(request_id: FromPath[str]) -> ASGIApp:
        """From the beginning and under the same id; fix first what killed its agents. Its answer can be read from
        `/v1/requests/{id}/stream` of the inference service."""
        match await ask(store.pool(pool_of(checked_id(request_id))).requeue(request_id)):
            case Requeued.REQUEUED:
                return json_answer(DeadLetterAnswer(request_id, "requeued"))
            case Requeued.GONE:
                raise Conflict("It died more than a day ago, and Redis does not have the request any more; drop it.")
            case Requeued.NOT_DEAD:
                raise _no_letter(request_id)

    @delete("/api/v1/dead_letters/{request_id:str}", status_code=200, operation=DROP)
    async def drop_dead_letter(request_id: FromPath[str]) -> ASGIApp:
        if not await ask(store.pool(pool_of(checked_id(request_id))).drop(request_id)):
            raise _no_letter(request_id)
        return json_answer(DeadLetterAnswer(request_id, "dropped"))

    return [list_dead_letters, requeue_dead_letter, drop_dead_letter]


def _no_letter(request_id: str) -> RequestNotFound:
    return RequestNotFound(f"No dead letter has the id {request_id}.", param="id")
