"""`GET /api/v1/agent_access`: where Redis is, for agents. The one route of scope `agent`."""

from __future__ import annotations

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.access.caller import caller_of
from api.body import AnyRequest
from api.management.keys import json_answer
from api.openai.objects import ErrorAnswer
from api.operation import JSON, Answer, Operation
from paddler.agent_access import PATH, AgentAccess, told_to
from paddler.errors import Conflict, Forbidden, Unauthorized
from paddler.tenants.records import Scope

SCOPE: Scope = "agent"

AGENT_ACCESS = Operation(
    summary="Where agents find Redis; with an API key of scope `agent`, always.",
    tag="management",
    answers={200: Answer(description="Its URL and prefix.", content={JSON: AgentAccess})},
    errors=(Unauthorized, Forbidden, Conflict),
    error_body=ErrorAnswer,
)

NEEDS_KEY = (
    "Where Redis is, and with what password, is told only for an API key of scope `agent`, also where nobody needs a "
    "key otherwise: `paddler keys create NAME --scope agent`."
)


def agent_access_route(access: AgentAccess) -> HTTPRouteHandler:
    @get(PATH, operation=AGENT_ACCESS)
    async def agent_access(request: AnyRequest) -> ASGIResponse:
        """Looks at the scope itself, too: while there is no key the gate lets everybody through, and the panel's gate
        lets in who is logged in."""
        account = caller_of(request.scope).account
        if account is None:
            raise Unauthorized(NEEDS_KEY)
        if SCOPE not in account.key.scopes:
            raise Forbidden(f"This API key has not the scope `{SCOPE}`, which this route needs.", param=SCOPE)
        client = request.client
        return json_answer(told_to(access, None if client is None else client.host))

    return agent_access
