"""The form that an answer is to have, as a grammar."""

from __future__ import annotations

import msgspec

from paddler.errors import InvalidField
from paddler.structure.json_schema import json_schema_to_gbnf
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import SchemaError


def schema_grammar(schema: object, param: str) -> str:
    """GBNF of a JSON schema, the field `param` of a request. Raises `InvalidField` for what cannot be enforced."""
    try:
        return json_schema_to_gbnf(schema)
    except (SchemaError, GrammarError) as error:
        raise InvalidField(f"`{param}`: {error}.", param=param) from None
    except RecursionError:
        raise InvalidField(f"`{param}` is nested too deeply.", param=param) from None


def schema_text(schema: object) -> str:
    """As the wire carries it, beside its grammar."""
    return msgspec.json.encode(schema).decode()
