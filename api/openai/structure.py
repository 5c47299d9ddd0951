"""What a request says about the form of its answer, as a grammar."""

from __future__ import annotations

from api.openai.schema import GenerationRequest, ResponseFormat
from api.structure import schema_grammar, schema_text
from paddler.errors import InvalidField
from paddler.payload import check_grammar
from paddler.structure.json_schema import json_object_gbnf

_FORMAT_TYPE = "response_format.type"
_NAMES = ("response_format", "json_schema", "grammar")


def read_grammar(request: GenerationRequest) -> str | None:
    """GBNF, or None for free text. Raises `InvalidField` for what cannot be enforced, before anything is queued."""
    given = [name for name in _NAMES if getattr(request, name) is not None]
    if request.response_format is not None and request.response_format.type == "text":
        given.remove("response_format")
    if len(given) > 1:
        raise InvalidField(f"`{given[1]}` and `{given[0]}` exclude each other; send one of them.", param=given[1])
    if request.grammar is not None:
        check_grammar(request.grammar, "grammar")
        return request.grammar
    if request.json_schema is not None:
        return schema_grammar(request.json_schema, "json_schema")
    return _of_format(request.response_format) if request.response_format is not None else None


def read_schema(request: GenerationRequest) -> str:
    """The JSON text of the schema that the grammar of `read_grammar` was made of; empty if there is none."""
    if request.json_schema is not None:
        return schema_text(request.json_schema)
    format = request.response_format
    if format is None or format.type == "text":
        return ""
    schema = format.schema if format.json_schema is None else format.json_schema.schema
    return schema_text(({"type": "object"} if format.json_schema is None else {}) if schema is None else schema)


def _of_format(format: ResponseFormat) -> str | None:
    if format.json_schema is not None and format.type != "json_schema":
        raise InvalidField(
            f"`json_schema` needs type `json_schema`, not `{format.type}`.", param="response_format.type"
        )
    if format.schema is not None and format.type != "json_object":
        raise InvalidField(
            "`schema` beside the type goes with `json_object`; with `json_schema` it is `json_schema.schema`.",
            param="response_format.schema",
        )
    match format.type:
        case "text":
            return None
        case "json_object":
            schema = format.schema
            return json_object_gbnf() if schema is None else schema_grammar(schema, "response_format.schema")
        case "json_schema":
            if format.json_schema is None:
                raise InvalidField("`response_format.json_schema` is required.", param="response_format.json_schema")
            schema = format.json_schema.schema
            return schema_grammar({} if schema is None else schema, "response_format.json_schema.schema")
