"""JSON schemas as values: what their keywords say, references, and one schema out of two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "id", "$comment", "$anchor", "$defs", "definitions", "contentMediaType"),
        *("contentEncoding", "contentSchema", "discriminator", "externalDocs", "xml"),
    )
)
"""Keywords that allow and forbid nothing."""
OF_TYPE: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties",
               "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
               "unevaluatedProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains",
              "additionalItems", "unevaluatedItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
"""Keywords that mean something to values of one type."""
GENERAL = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
_DEPENDENT = {"additionalProperties": "properties", "items": "prefixItems"}
"""Keywords about what those beside them leave over."""
_BY_KEYWORD = {keyword: type_ for type_, keywords in OF_TYPE.items() for keyword in keywords}


class SchemaError(ValueError):
    """The schema is none, or asks for what cannot be enforced. `path` leads to the place, as `/properties/a`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{message} (at {path or 'its top'})")
        self.path = path


def keywords_of(schema: Schema, path: str) -> dict[str, Any]:
    """Without annotations. Raises `SchemaError` for one that is not known: it may forbid something."""
    found = {name: value for name, value in schema.items() if name not in ANNOTATIONS and not name.startswith("x-")}
    for name, value in found.items():
        if name not in GENERAL and name not in _BY_KEYWORD:
            raise SchemaError(path, f"`{name[:60]}` cannot be enforced; leave it out")
        if name in _SHAPES and not _SHAPES[name][0](value):
            raise SchemaError(path, f"`{name}` must be {_SHAPES[name][1]}")
    return found


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)  # pyright: ignore[reportUnknownVariableType]


def _is_full_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)  # pyright: ignore[reportUnknownArgumentType]


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (
        lambda value: _is_list_of_strings([value]) or (_is_list_of_strings(value) and bool(value)),
        "a type or types",
    ),
    "required": (_is_list_of_strings, "a list of strings"),
    "properties": (lambda value: isinstance(value, Mapping), "an object"),
    "pattern": (lambda value: isinstance(value, str), "a string"),
    "format": (lambda value: isinstance(value, str), "a string"),
    "$ref": (lambda value: isinstance(value, str), "a string"),
    "prefixItems": (lambda value: isinstance(value, list), "a list of schemas"),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), (is_count, "a whole number from 0 on")),
    **dict.fromkeys(("minProperties", "maxProperties"), (is_count, "a whole number from 0 on")),
    **dict.fromkeys(("enum", "anyOf", "oneOf", "allOf"), (_is_full_list, "a list of at least one")),
}


def types_of(schema: Schema, path: str) -> tuple[str, ...]:
    """Of a schema that names none, what its keywords are about: narrower than it says, so every answer is valid."""
    if "type" in schema:
        named: Any = schema["type"]
        types = tuple(dict.fromkeys([named] if isinstance(named, str) else named))
        if any(one not in TYPES for one in types):
            raise SchemaError(path, f"`type` must be one of {', '.join(TYPES)}")
        return types
    about = tuple(dict.fromkeys(_BY_KEYWORD[name] for name in schema if name in _BY_KEYWORD))
    return about or ("object", "array", "string", "number", "boolean", "null")


def of_type(schema: Schema, type_: str) -> dict[str, Any]:
    """The keywords that mean something to values of the type."""
    names = OF_TYPE.get("number" if type_ == "integer" else type_, ())
    return {name: value for name, value in schema.items() if name in names}


def resolve(root: Schema, ref: object, path: str) -> Any:
    """What a `$ref` within the same schema leads to."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise SchemaError(path, f"`$ref` must lead to a place in the same schema (`#/...`), not to {str(ref)[:60]!r}")
    found: Any = root
    for part in ref.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]  # pyright: ignore[reportUnknownVariableType]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):  # pyright: ignore[reportUnknownArgumentType]
            found = found[int(key)]  # pyright: ignore[reportUnknownVariableType]
        else:
            raise SchemaError(path, f"`$ref` {ref[:60]!r} leads nowhere")
    return found  # pyright: ignore[reportUnknownVariableType]


def merged(schemas: Iterable[Schema], path: str) -> dict[str, Any]:
    """One schema that says what all of them say. Raises `SchemaError` where two speak of the same thing."""
    schemas = list(schemas)
    for dependent, on in _DEPENDENT.items():
        holders = [schema for schema in schemas if on in schema or schema.get(dependent, True) is not True]
        if len(holders) > 1 and any(dependent in schema for schema in holders):
            raise SchemaError(path, f"`{dependent}` beside the `{on}` of another (`allOf`) cannot be enforced")
    result: dict[str, Any] = {}
    for schema in schemas:
        for name, value in schema.items():
            if name in ANNOTATIONS or name not in result or result[name] == value:
                result[name] = value
            elif name == "required":
                result[name] = list(dict.fromkeys([*result[name], *value]))
            elif name == "properties":
                both = [key for key in value if key in result[name] and result[name][key] != value[key]]
                if both:
                    raise SchemaError(path, f"property {both[0][:60]!r} is described twice, which cannot be joined")
                result[name] = {**result[name], **value}
            else:
                raise SchemaError(path, f"`{name}` is given twice (`allOf`, or beside another), which cannot be joined")
    return result


def are_disjoint(one: Any, other: Any, root: Schema, depth: int = 0) -> bool:
    """Whether it is plain that no value fits both: other types, other constants, or a required property of which one of
    that holds."""
    if depth > 8:
        return False
    one, other = (_followed(schema, root) for schema in (one, other))
    if one is None or other is None:
        return False
    if (values := _values(one)) is not None and (others := _values(other)) is not None:
        return not any(_same(value, another) for value in values for another in others)
    types, other_types = (_kinds(schema) for schema in (one, other))
    if types is not None and other_types is not None and not types & other_types:
        return True
    both = set(one.get("required", ())) & set(other.get("required", ()))
    if types != {"object"} or other_types != {"object"}:
        return False
    return any(
        are_disjoint(one.get("properties", {}).get(key), other.get("properties", {}).get(key), root, depth + 1)
        for key in both
    )


def _followed(schema: Any, root: Schema) -> dict[str, Any] | None:
    for _ in range(8):
        if not isinstance(schema, Mapping):
            break
        keywords = keywords_of(schema, "")  # pyright: ignore[reportUnknownArgumentType]
        if "$ref" not in keywords:
            return keywords
        schema = resolve(root, keywords["$ref"], "")
    return None


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _kinds(schema: Schema) -> set[str] | None:
    if (values := _values(schema)) is not None:
        return {_kind(value) for value in values}
    if "type" not in schema:
        return None
    return {"number" if one == "integer" else one for one in types_of(schema, "")}


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return next((kind for type_, kind in kinds.items() if isinstance(value, type_)), "number")


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
