"""What a request says about the form of its answer, as a grammar."""

from __future__ import annotations

from api.openai.schema import GenerationRequest, ResponseFormat
from paddler.errors import InvalidField
from paddler.payload import check_grammar
from paddler.structure.json_schema import json_object_gbnf, json_schema_to_gbnf
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import SchemaError

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
        return _of_schema(request.json_schema, "json_schema")
    return _of_format(request.response_format) if request.response_format is not None else None


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
            return json_object_gbnf() if format.schema is None else _of_schema(format.schema, "response_format.schema")
        case "json_schema":
            if format.json_schema is None:
                raise InvalidField("`response_format.json_schema` is required.", param="response_format.json_schema")
            schema = format.json_schema.schema
            return _of_schema({} if schema is None else schema, "response_format.json_schema.schema")


def _of_schema(schema: object, param: str) -> str:
    try:
        return json_schema_to_gbnf(schema)
    except (SchemaError, GrammarError) as error:
        raise InvalidField(f"`{param}`: {error}.", param=param) from None
    except RecursionError:
        raise InvalidField(f"`{param}` is nested too deeply.", param=param) from None
