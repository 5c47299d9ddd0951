"""The `grammar` of a native request, as the wire has it: GBNF with the rule `root`."""

from __future__ import annotations

import msgspec

from api.native.errors import ToldInStream
from api.native.schema import GbnfGrammar, Grammar
from paddler.errors import InvalidField
from paddler.payload import check_grammar
from paddler.structure.gbnf import rooted
from paddler.structure.json_schema import json_schema_to_gbnf
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import SchemaError

_decoder = msgspec.json.Decoder()


def read_grammar(grammar: Grammar | None) -> str | None:
    """Raises `ToldInStream`."""
    if grammar is None:
        return None
    try:
        if isinstance(grammar, GbnfGrammar):
            gbnf = rooted(grammar.grammar, grammar.root)
        else:
            gbnf = json_schema_to_gbnf(_decoder.decode(grammar.schema))
        check_grammar(gbnf, "grammar")
    except (SchemaError, GrammarError) as error:
        raise _refused(f"`grammar`: {error}.") from None
    except InvalidField as error:
        raise _refused(error.message) from None
    except msgspec.DecodeError as error:
        raise _refused(f"`grammar.schema` is the text of a JSON schema, but no JSON: {error}.") from None
    except (RecursionError, UnicodeError):
        raise _refused("`grammar.schema` cannot be read: nested too deeply, or no Unicode.") from None
    return gbnf


def read_schema(grammar: Grammar | None) -> str:
    """The text of the schema that it was made of; empty if there is none."""
    return "" if grammar is None or isinstance(grammar, GbnfGrammar) else grammar.schema


def _refused(message: str) -> ToldInStream:
    return ToldInStream("GrammarSyntaxError", message)
