"""What can be set about inference, for forms: names, defaults, ranges and meanings as whoever checks them has them."""

from __future__ import annotations

from functools import cache

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec import Struct

from api.management.asking import json_answer
from api.openai.objects import ErrorAnswer
from api.operation import JSON, Answer, Operation
from paddler.desired.parameters import ParameterDescription, describe_parameters


class ParameterList(Struct, frozen=True):
    """By group, in the order in which they are shown."""

    parameters: list[ParameterDescription]


PARAMETERS = Operation(
    summary="The inference parameters of a desired state.",
    tag="desired state",
    answers={
        200: Answer(description="Each with its default, its range and its meaning.", content={JSON: ParameterList})
    },
    error_body=ErrorAnswer,
)


def parameter_routes() -> list[HTTPRouteHandler]:
    @get("/api/v1/inference_parameters", operation=PARAMETERS)
    async def list_inference_parameters() -> ASGIApp:
        return json_answer(_described())

    return [list_inference_parameters]


@cache
def _described() -> ParameterList:
    return ParameterList(describe_parameters())
